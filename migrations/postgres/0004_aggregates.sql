-- Read models of all kinds of things in one shape: what the events make of each, as JSON, with the columns that it is found by.
-- What a kind has no use for is NULL. A state that is NULL: it was deleted.
CREATE TABLE aggregates (
    kind    TEXT NOT NULL,
    id      BYTEA NOT NULL,
    tenant  TEXT NOT NULL,
    owner   TEXT,
    parent  BYTEA,               -- what it is a part of: the sandbox of an exec
    place   TEXT,               -- where it is or waits: a node, a queue
    status  TEXT NOT NULL,      -- where it stands, in one word
    label   TEXT,               -- what it is counted together with: a pool, a group
    ended   SMALLINT NOT NULL,   -- 1 when nothing can happen to it any more
    rank    BIGINT NOT NULL,   -- what goes before what among those that wait
    sort_at BIGINT NOT NULL,   -- its place in a list
    due_at  BIGINT,            -- when something is due to happen to it
    state   TEXT,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 70);

INSERT INTO aggregates (kind, id, tenant, owner, place, status, label, ended, rank, sort_at, due_at, state)
SELECT 'sandbox', id, tenant, owner, node,
    COALESCE(substring(state from '"phase":\{"phase":"([a-z_]+)"'), 'unknown'),
    provider, ended, 0, 0, expires_at, state
FROM sandboxes;

INSERT INTO aggregates (kind, id, tenant, parent, status, ended, rank, sort_at, state)
SELECT 'exec', id, tenant, sandbox,
    COALESCE(substring(state from '"end":\{"outcome":"([a-z_]+)"'),
        CASE WHEN state LIKE '%"pending":true%' THEN 'requested' ELSE 'running' END),
    ended, 0, started_at, state
FROM execs;

INSERT INTO aggregates (kind, id, tenant, status, ended, rank, sort_at, state)
SELECT 'template', convert_to(tenant || '/' || name, 'UTF8'), tenant,
    CASE WHEN template IS NULL THEN 'deleted' ELSE 'saved' END,
    CASE WHEN template IS NULL THEN 1 ELSE 0 END, 0, 0,
    '{"tenant":"' || tenant || '","template":' || template || '}'
FROM templates;

INSERT INTO aggregates (kind, id, tenant, status, ended, rank, sort_at, state)
SELECT 'webhook', id, tenant,
    COALESCE(
        CASE WHEN state IS NULL THEN 'deleted' END,
        substring(state from '"phase":\{"phase":"([a-z_]+)"'), 'unknown'),
    CASE WHEN state IS NULL THEN 1 ELSE 0 END, 0, 0, state
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
