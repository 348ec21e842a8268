-- Read models of all kinds of things in one shape: what the events make of each, as JSON, with the columns that it is found by.
-- What a kind has no use for is NULL. A state that is NULL: it was deleted.
CREATE TABLE aggregates (
    kind    TEXT NOT NULL,
    id      BLOB NOT NULL,
    tenant  TEXT NOT NULL,
    owner   TEXT,
    parent  BLOB,               -- what it is a part of: the sandbox of an exec
    place   TEXT,               -- where it is or waits: a node, a queue
    status  TEXT NOT NULL,      -- where it stands, in one word
    label   TEXT,               -- what it is counted together with: a pool, a group
    ended   INTEGER NOT NULL,   -- 1 when nothing can happen to it any more
    rank    INTEGER NOT NULL,   -- what goes before what among those that wait
    sort_at INTEGER NOT NULL,   -- its place in a list
    due_at  INTEGER,            -- when something is due to happen to it
    state   TEXT,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

INSERT INTO aggregates (kind, id, tenant, owner, place, status, label, ended, rank, sort_at, due_at, state)
SELECT 'sandbox', id, tenant, owner, node,
    COALESCE(CASE WHEN json_valid(state) THEN json_extract(state, '$.phase.phase') END, 'unknown'),
    provider, ended, 0, 0, expires_at, state
FROM sandboxes;

INSERT INTO aggregates (kind, id, tenant, parent, status, ended, rank, sort_at, state)
SELECT 'exec', id, tenant, sandbox,
    CASE WHEN json_valid(state) THEN COALESCE(
        json_extract(state, '$.end.outcome'),
        CASE WHEN json_extract(state, '$.pending') THEN 'requested' ELSE 'running' END) ELSE 'unknown' END,
    ended, 0, started_at, state
FROM execs;

INSERT INTO aggregates (kind, id, tenant, status, ended, rank, sort_at, state)
SELECT 'template', CAST(tenant || '/' || name AS BLOB), tenant,
    CASE WHEN template IS NULL THEN 'deleted' ELSE 'saved' END, template IS NULL, 0, 0,
    '{"tenant":"' || tenant || '","template":' || template || '}'
FROM templates;

INSERT INTO aggregates (kind, id, tenant, status, ended, rank, sort_at, state)
SELECT 'webhook', id, tenant,
    COALESCE(
        CASE WHEN state IS NULL THEN 'deleted' END,
        CASE WHEN json_valid(state) THEN json_extract(state, '$.phase.phase') END, 'unknown'),
    state IS NULL, 0, 0, state
FROM webhooks;

DROP TABLE sandboxes;
DROP TABLE execs;
DROP TABLE templates;
DROP TABLE webhooks;

-- What has no parent is listed by tenant, the rest by parent.
CREATE INDEX aggregates_of_tenant ON aggregates (kind, tenant, id) WHERE parent IS NULL;
CREATE INDEX aggregates_of_parent ON aggregates (kind, parent, sort_at, id) WHERE parent IS NOT NULL;
CREATE INDEX aggregates_live ON aggregates (kind, parent, id) WHERE ended = 0;
CREATE INDEX aggregates_at_place ON aggregates (kind, place, id) WHERE ended = 0 AND place IS NOT NULL;

-- What a tenant's feed and audit trail are read by.
CREATE INDEX events_of_tenant ON events (tenant, position);
