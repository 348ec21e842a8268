-- The log. Ids are their 16 bytes; times are microseconds since 1970; the header is the exact bytes that the hash chain
-- covers. Bodies are apart, so that they can be dropped one day and the chain still verifies: it covers their hashes.
CREATE TABLE events (
    position    BIGINT PRIMARY KEY,
    id          BYTEA NOT NULL,
    tenant      TEXT NOT NULL,
    sandbox     BYTEA,
    exec        BYTEA,
    type        TEXT NOT NULL,
    time        BIGINT NOT NULL,
    header      BYTEA NOT NULL,
    body_length BIGINT,      -- in bytes, before it was encoded; only of what has a body
    body_hash   BYTEA,       -- of the body as it is stored
    hash        BYTEA NOT NULL
);

-- Output is found to be recorded already by its offset, and there is much of it: its ids need no index.
CREATE UNIQUE INDEX events_id ON events (id) WHERE type <> 'exec.output';
CREATE INDEX events_of_sandbox ON events (sandbox, position) WHERE sandbox IS NOT NULL;
CREATE INDEX events_of_exec ON events (exec, position) WHERE exec IS NOT NULL;
-- An exec starts once, and the database itself says so: the recorder takes a start for new without looking.
CREATE UNIQUE INDEX events_one_start ON events (exec) WHERE type = 'exec.started';
-- What retention and verification go by.
CREATE INDEX events_checkpoints ON events (position) WHERE type = 'audit.checkpoint';

-- The bytes of output and input.
CREATE TABLE bodies (
    position    BIGINT NOT NULL,
    exec        BYTEA NOT NULL,
    stream      SMALLINT NOT NULL,  -- 1 stdout, 2 stderr, 3 stdin
    byte_offset BIGINT,      -- where it begins in the stream; NULL for stdin
    length      BIGINT NOT NULL,    -- of the plain bytes
    encoding    SMALLINT NOT NULL,  -- 0 raw, 1 zstd, 2 sealed, 3 zstd and then sealed
    body        BYTEA NOT NULL
) PARTITION BY RANGE (position);

ALTER TABLE bodies ADD PRIMARY KEY (position);
-- What can be compressed is compressed already.
ALTER TABLE bodies ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE INDEX bodies_of_exec ON bodies (exec, stream, byte_offset) WHERE byte_offset IS NOT NULL;

-- Up to where things were dropped, after a signed checkpoint (an event) that speaks of them. A floor never goes back.
CREATE TABLE retention (
    class      TEXT PRIMARY KEY,    -- output: bodies; lifecycle: events and bodies
    floor      BIGINT NOT NULL,
    checkpoint BYTEA
);

INSERT INTO retention (class, floor) VALUES ('output', 0), ('lifecycle', 0);

CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF TG_ARGV[0] = 'events' THEN
            IF OLD.position <= (SELECT floor FROM retention WHERE class = 'lifecycle') THEN
                RETURN OLD;
            END IF;
        ELSIF OLD.position <= (SELECT max(floor) FROM retention) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'events are append-only';
END
$$;

CREATE TRIGGER events_refuse_change BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only('events');
CREATE TRIGGER events_refuse_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only('events');
CREATE TRIGGER bodies_refuse_change BEFORE UPDATE OR DELETE ON bodies
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only('bodies');
CREATE TRIGGER bodies_refuse_truncate BEFORE TRUNCATE ON bodies
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only('bodies');

CREATE FUNCTION floors_only_rise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.class = OLD.class AND NEW.floor >= OLD.floor THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'floors of retention only rise';
END
$$;

CREATE TRIGGER retention_only_rises BEFORE UPDATE OR DELETE ON retention
    FOR EACH ROW EXECUTE FUNCTION floors_only_rise();

-- Makes room for the bodies of a million positions. Called by the recorder, ahead of need.
CREATE FUNCTION make_bodies_partition(number BIGINT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name TEXT := 'bodies_' || number;
BEGIN
    PERFORM pg_advisory_xact_lock(7283110);
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE bodies INCLUDING STORAGE)', name);
        EXECUTE format('ALTER TABLE bodies ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
            name, number * 1000000, (number + 1) * 1000000);
        EXECUTE format('CREATE TRIGGER bodies_refuse_truncate BEFORE TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only(''bodies'')', name);
    END IF;
END
$$;

-- The keys of sealed bodies, one for each sandbox, themselves sealed under the master key. A key that is NULL was
-- destroyed: what was sealed under it is erased.
CREATE TABLE data_keys (
    sandbox    BYTEA PRIMARY KEY,
    tenant     TEXT NOT NULL,
    sealed_key BYTEA,
    erased_at  BIGINT
);

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
