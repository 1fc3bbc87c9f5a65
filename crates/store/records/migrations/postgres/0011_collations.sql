-- Names are ordered by their code points, as SQLite does, whatever the database's own collation: lists
-- and their cursors are the same on both, and prefixes are ranges of an index.
ALTER TABLE scopes ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE aliases
  ALTER COLUMN dialect TYPE TEXT COLLATE "C",
  ALTER COLUMN kind TYPE TEXT COLLATE "C",
  ALTER COLUMN alias TYPE TEXT COLLATE "C";
ALTER TABLE documents
  ALTER COLUMN dialect TYPE TEXT COLLATE "C",
  ALTER COLUMN kind TYPE TEXT COLLATE "C";
ALTER TABLE document_keys
  ALTER COLUMN dialect TYPE TEXT COLLATE "C",
  ALTER COLUMN kind TYPE TEXT COLLATE "C",
  ALTER COLUMN name TYPE TEXT COLLATE "C",
  ALTER COLUMN value TYPE TEXT COLLATE "C";
ALTER TABLE tenants ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE principals ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE held_secrets
  ALTER COLUMN holder TYPE TEXT COLLATE "C",
  ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE build_secrets ALTER COLUMN name TYPE TEXT COLLATE "C";
ALTER TABLE retention ALTER COLUMN scope TYPE TEXT COLLATE "C";
ALTER TABLE kept ALTER COLUMN dialect TYPE TEXT COLLATE "C";
ALTER TABLE kept_totals ALTER COLUMN dialect TYPE TEXT COLLATE "C";

-- The blob store that belongs to this database holds this blob.
CREATE TABLE blob_store (
  id BIGINT PRIMARY KEY,
  mark BYTEA NOT NULL
);
