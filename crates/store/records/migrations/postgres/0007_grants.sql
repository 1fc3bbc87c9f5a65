-- Which tenant may read which blob, where several servers share a blob store.
CREATE TABLE grants (
  tenant BYTEA NOT NULL,
  digest BYTEA NOT NULL,
  PRIMARY KEY (tenant, digest)
);

-- A known value, sealed with the key for secrets: who cannot open it has another key.
CREATE TABLE key_check (
  name TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  sealed BYTEA NOT NULL
);
