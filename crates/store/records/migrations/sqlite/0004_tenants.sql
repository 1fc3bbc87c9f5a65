CREATE TABLE tenants (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE principals (
  id BLOB PRIMARY KEY,
  tenant BLOB NOT NULL,
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (tenant, name)
) STRICT;

-- Tokens are random; only their hash is kept.
CREATE TABLE tokens (
  id BLOB PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  tenant BLOB NOT NULL,
  principal BLOB NOT NULL,
  role TEXT NOT NULL,
  name TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT;
CREATE INDEX tokens_by_tenant ON tokens (tenant, id);

CREATE TABLE audit (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  tenant BLOB NOT NULL,
  principal BLOB,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant, position);
CREATE INDEX audit_by_age ON audit (at);

-- Sealed values. The key that sealed one is named, never kept.
CREATE TABLE held_secrets (
  tenant BLOB NOT NULL,
  holder TEXT NOT NULL,
  name TEXT NOT NULL,
  key_id TEXT NOT NULL,
  sealed BLOB NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, holder, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_secrets_by_key ON held_secrets (key_id);

CREATE TABLE build_secrets (
  build INTEGER NOT NULL,
  name TEXT NOT NULL,
  key_id TEXT NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (build, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX build_secrets_by_key ON build_secrets (key_id);
