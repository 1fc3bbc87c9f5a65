-- PostgreSQL orders names here as SQLite always has; see its file of this number.

-- The blob store that belongs to this database holds this blob.
CREATE TABLE blob_store (
  id INTEGER PRIMARY KEY,
  mark BLOB NOT NULL
) STRICT;
