-- What says which viewer links are good: a gateway reads it when it starts.
CREATE INDEX events_links ON events (position) WHERE type IN ('access.granted', 'access.revoked');
