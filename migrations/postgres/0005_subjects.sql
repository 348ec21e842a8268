-- What an event is about, where its events are found by that: the name of a kind, a slash and the key of one. NULL for what is found by
-- its sandbox or exec, or among all events of its category, so that those pay nothing for it.
ALTER TABLE events ADD COLUMN subject BYTEA;

CREATE INDEX events_of_subject ON events (subject, position) WHERE subject IS NOT NULL;

-- What waits for its turn, tenant by tenant and queue by queue. What is due at no time comes first.
CREATE INDEX jobs_queued ON aggregates (tenant, rank, COALESCE(due_at, 0), id) WHERE kind = 'job' AND status = 'queued';
CREATE INDEX jobs_queued_at ON aggregates (tenant, place, rank, COALESCE(due_at, 0), id)
    WHERE kind = 'job' AND status = 'queued';
-- Of jobs there are many, and they are looked for by where they stand and by their group.
CREATE INDEX jobs_of_status ON aggregates (tenant, status, id) WHERE kind = 'job';
CREATE INDEX jobs_of_label ON aggregates (tenant, label, id) WHERE kind = 'job' AND label IS NOT NULL;
