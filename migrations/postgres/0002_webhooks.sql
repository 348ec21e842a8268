-- Read model: what the events make of each webhook, as JSON. A state that is NULL: it was deleted.
CREATE TABLE webhooks (
    id     BYTEA PRIMARY KEY,
    tenant TEXT NOT NULL,
    state  TEXT
);
