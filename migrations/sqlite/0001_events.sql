-- The log. Ids are their 16 bytes; times are microseconds since 1970; header and body are the exact bytes that the
-- hash chain covers.
CREATE TABLE events (
    position    INTEGER PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE,
    tenant      TEXT NOT NULL,
    sandbox     BLOB,
    exec        BLOB,
    type        TEXT NOT NULL,
    time        INTEGER NOT NULL,
    stream      INTEGER,            -- 1 stdout, 2 stderr; only for output
    byte_offset INTEGER,            -- where the body begins in the stream; only for output
    header      BLOB NOT NULL,
    body        BLOB,
    hash        BLOB NOT NULL
) STRICT;

CREATE INDEX events_of_sandbox ON events (sandbox, position) WHERE sandbox IS NOT NULL;
CREATE INDEX events_of_exec ON events (exec, position) WHERE exec IS NOT NULL;
CREATE INDEX events_output ON events (exec, stream, byte_offset) WHERE stream IS NOT NULL;
-- An exec starts once, and the database itself says so: the recorder takes a start for new without looking.
CREATE UNIQUE INDEX events_one_start ON events (exec) WHERE type = 'exec.started';

CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

-- One row: the end of the log, and how far the transport has been copied.
CREATE TABLE head (
    only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
    position        INTEGER NOT NULL,
    stream_sequence INTEGER NOT NULL,
    incarnation     TEXT NOT NULL
) STRICT;

INSERT INTO head VALUES (1, 0, 0, '');

-- The newest link of each tenant's hash chain.
CREATE TABLE chain_heads (
    tenant   TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    hash     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Read models: what the events make of each object, as JSON, with the columns that it is found by.
CREATE TABLE sandboxes (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    owner      TEXT,
    provider   TEXT NOT NULL,
    node       TEXT,
    ended      INTEGER NOT NULL,    -- 1 when terminal
    expires_at INTEGER NOT NULL,
    state      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sandboxes_live ON sandboxes (id) WHERE ended = 0;

CREATE TABLE execs (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    sandbox    BLOB NOT NULL,
    ended      INTEGER NOT NULL,    -- 1 when terminal
    started_at INTEGER NOT NULL,
    state      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX execs_of_sandbox ON execs (sandbox, started_at, id);
CREATE INDEX execs_live ON execs (id) WHERE ended = 0;

-- A template that is NULL was deleted.
CREATE TABLE templates (
    tenant   TEXT NOT NULL,
    name     TEXT NOT NULL,
    template TEXT,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
