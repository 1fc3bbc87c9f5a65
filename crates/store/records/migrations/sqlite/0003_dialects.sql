-- What dialects keep beside builds. The tenant of 16 zero bytes stands for all tenants.

CREATE TABLE aliases (
  dialect TEXT NOT NULL,
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  alias TEXT NOT NULL,
  target BLOB NOT NULL,
  PRIMARY KEY (dialect, tenant, kind, alias)
) STRICT, WITHOUT ROWID;
CREATE INDEX aliases_by_target ON aliases (target);

CREATE TABLE counters (
  dialect TEXT NOT NULL,
  tenant BLOB NOT NULL,
  name TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (dialect, tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  dialect TEXT NOT NULL,
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  id BLOB NOT NULL,
  build BLOB,
  version INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (dialect, tenant, kind, id)
) STRICT;
CREATE INDEX documents_by_kind ON documents (dialect, tenant, kind, position);
CREATE INDEX documents_by_build ON documents (build) WHERE build IS NOT NULL;

CREATE TABLE document_keys (
  dialect TEXT NOT NULL,
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (dialect, tenant, kind, name, value, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX document_keys_by_position ON document_keys (position);

-- Submissions that came with a key of their own: repeated, they get the same build.
CREATE TABLE idempotency (
  tenant BLOB NOT NULL,
  key TEXT NOT NULL,
  request BLOB NOT NULL,
  build BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
