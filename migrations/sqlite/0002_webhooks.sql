-- Read model: what the events make of each webhook, as JSON. A state that is NULL: it was deleted.
CREATE TABLE webhooks (
    id     BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    state  TEXT
) STRICT, WITHOUT ROWID;
