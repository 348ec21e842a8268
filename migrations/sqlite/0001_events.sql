-- The log. Ids are their 16 bytes; times are microseconds since 1970; the header is the exact bytes that the hash chain
-- covers. Bodies are apart, so that they can be dropped one day and the chain still verifies: it covers their hashes.
CREATE TABLE events (
    position    INTEGER PRIMARY KEY,
    id          BLOB NOT NULL,
    tenant      TEXT NOT NULL,
    sandbox     BLOB,
    exec        BLOB,
    type        TEXT NOT NULL,
    time        INTEGER NOT NULL,
    header      BLOB NOT NULL,
    body_length INTEGER,     -- in bytes, before it was encoded; only of what has a body
    body_hash   BLOB,        -- of the body as it is stored
    hash        BLOB NOT NULL
) STRICT;

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
    position    INTEGER PRIMARY KEY,
    exec        BLOB NOT NULL,
    stream      INTEGER NOT NULL,   -- 1 stdout, 2 stderr, 3 stdin
    byte_offset INTEGER,     -- where it begins in the stream; NULL for stdin
    length      INTEGER NOT NULL,   -- of the plain bytes
    encoding    INTEGER NOT NULL,   -- 0 raw, 1 zstd, 2 sealed, 3 zstd and then sealed
    body        BLOB NOT NULL
) STRICT;

CREATE INDEX bodies_of_exec ON bodies (exec, stream, byte_offset) WHERE byte_offset IS NOT NULL;

-- Up to where things were dropped, after a signed checkpoint (an event) that speaks of them. A floor never goes back.
CREATE TABLE retention (
    class      TEXT PRIMARY KEY,    -- output: bodies; lifecycle: events and bodies
    floor      INTEGER NOT NULL,
    checkpoint BLOB
) STRICT, WITHOUT ROWID;

INSERT INTO retention (class, floor) VALUES ('output', 0), ('lifecycle', 0);

CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
WHEN OLD.position > COALESCE((SELECT floor FROM retention WHERE class = 'lifecycle'), 0)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER bodies_refuse_update BEFORE UPDATE ON bodies
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER bodies_refuse_delete BEFORE DELETE ON bodies
WHEN OLD.position > COALESCE((SELECT max(floor) FROM retention), 0)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER retention_only_rises BEFORE UPDATE ON retention
WHEN NEW.class <> OLD.class OR NEW.floor < OLD.floor
BEGIN
    SELECT RAISE(ABORT, 'floors of retention only rise');
END;

CREATE TRIGGER retention_refuse_delete BEFORE DELETE ON retention
BEGIN
    SELECT RAISE(ABORT, 'floors of retention only rise');
END;

-- The keys of sealed bodies, one for each sandbox, themselves sealed under the master key. A key that is NULL was
-- destroyed: what was sealed under it is erased.
CREATE TABLE data_keys (
    sandbox    BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    sealed_key BLOB,
    erased_at  INTEGER
) STRICT, WITHOUT ROWID;

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
