-- The log. Ids are their 16 bytes; times are microseconds since 1970; header and body are the exact bytes that the
-- hash chain covers.
CREATE TABLE events (
    position    BIGINT PRIMARY KEY,
    id          BYTEA NOT NULL UNIQUE,
    tenant      TEXT NOT NULL,
    sandbox     BYTEA,
    exec        BYTEA,
    type        TEXT NOT NULL,
    time        BIGINT NOT NULL,
    stream      SMALLINT,           -- 1 stdout, 2 stderr; only for output
    byte_offset BIGINT,             -- where the body begins in the stream; only for output
    header      BYTEA NOT NULL,
    body        BYTEA,
    hash        BYTEA NOT NULL
);

-- Compressing every piece of output would cost more than anything else in an append.
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE INDEX events_of_sandbox ON events (sandbox, position) WHERE sandbox IS NOT NULL;
CREATE INDEX events_of_exec ON events (exec, position) WHERE exec IS NOT NULL;
CREATE INDEX events_output ON events (exec, stream, byte_offset) WHERE stream IS NOT NULL;
-- An exec starts once, and the database itself says so: the recorder takes a start for new without looking.
CREATE UNIQUE INDEX events_one_start ON events (exec) WHERE type = 'exec.started';

CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END
$$;

CREATE TRIGGER events_refuse_change BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only();

CREATE TRIGGER events_refuse_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only();

-- One row: the end of the log, and how far the transport has been copied.
CREATE TABLE head (
    only_row        SMALLINT PRIMARY KEY CHECK (only_row = 1),
    position        BIGINT NOT NULL,
    stream_sequence BIGINT NOT NULL,
    incarnation     TEXT NOT NULL
) WITH (fillfactor = 10);           -- room for the many versions of one row, so that its updates touch no index

INSERT INTO head VALUES (1, 0, 0, '');

-- The newest link of each tenant's hash chain.
CREATE TABLE chain_heads (
    tenant   TEXT PRIMARY KEY,
    position BIGINT NOT NULL,
    hash     BYTEA NOT NULL
) WITH (fillfactor = 50);

-- Read models: what the events make of each object, as JSON, with the columns that it is found by.
CREATE TABLE sandboxes (
    id         BYTEA PRIMARY KEY,
    tenant     TEXT NOT NULL,
    owner      TEXT,
    provider   TEXT NOT NULL,
    node       TEXT,
    ended      SMALLINT NOT NULL,   -- 1 when terminal
    expires_at BIGINT NOT NULL,
    state      TEXT NOT NULL
);

CREATE INDEX sandboxes_live ON sandboxes (id) WHERE ended = 0;

CREATE TABLE execs (
    id         BYTEA PRIMARY KEY,
    tenant     TEXT NOT NULL,
    sandbox    BYTEA NOT NULL,
    ended      SMALLINT NOT NULL,   -- 1 when terminal
    started_at BIGINT NOT NULL,
    state      TEXT NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX execs_of_sandbox ON execs (sandbox, started_at, id);
CREATE INDEX execs_live ON execs (id) WHERE ended = 0;

-- A template that is NULL was deleted.
CREATE TABLE templates (
    tenant   TEXT NOT NULL,
    name     TEXT NOT NULL,
    template TEXT,
    PRIMARY KEY (tenant, name)
);
