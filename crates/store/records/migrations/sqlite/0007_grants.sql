-- Which tenant may read which blob, where several servers share a blob store.
CREATE TABLE grants (
  tenant BLOB NOT NULL,
  digest BLOB NOT NULL,
  PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

-- A known value, sealed with the key for secrets: who cannot open it has another key.
CREATE TABLE key_check (
  name TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
