-- Times are nanoseconds since 1970, ids the 16 bytes of a UUID, digests 32 bytes.

-- What shares a queue and a history within a tenant. `last_time` is the time of the newest entry
-- of any build in it: times strictly increase within a scope.
CREATE TABLE scopes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant BLOB NOT NULL,
  name TEXT NOT NULL,
  last_time INTEGER NOT NULL,
  policy TEXT NOT NULL DEFAULT 'allow',
  active_max INTEGER,
  UNIQUE (tenant, name)
) STRICT;

-- One row a build: the fold of its entries. `position` counts accepted builds and orders lists.
-- What lists filter by lies in `facets`, so that updates here touch no index.
CREATE TABLE builds (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  tenant BLOB NOT NULL,
  scope INTEGER NOT NULL,
  state TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  finished_at INTEGER,
  fence INTEGER NOT NULL,
  batch INTEGER NOT NULL,
  record TEXT NOT NULL
) STRICT;
CREATE INDEX builds_by_creation ON builds (created_at);

CREATE TABLE definitions (
  build INTEGER PRIMARY KEY,
  body TEXT NOT NULL
) STRICT;

-- One event a row, or a run of log entries as one row.
CREATE TABLE entries (
  build INTEGER NOT NULL,
  number INTEGER NOT NULL,
  count INTEGER NOT NULL,
  scope INTEGER NOT NULL,
  time INTEGER NOT NULL,
  last_time INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (build, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_scope ON entries (scope, last_time);

-- Which builds have a property. A facet is the hash of the property.
CREATE TABLE facets (
  facet INTEGER NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (facet, position)
) STRICT, WITHOUT ROWID;

-- How many builds of a block of positions have it: exact totals and deep pages without a scan.
CREATE TABLE counts (
  facet INTEGER NOT NULL,
  block INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (facet, block, shard)
) STRICT, WITHOUT ROWID;

-- Who works on a build, and until when that is believed.
CREATE TABLE leases (
  build INTEGER PRIMARY KEY,
  scope INTEGER NOT NULL,
  tenant BLOB NOT NULL,
  worker BLOB NOT NULL,
  fence INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  deadline INTEGER
) STRICT;
CREATE INDEX leases_by_expiry ON leases (expires_at);
CREATE INDEX leases_by_deadline ON leases (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX leases_by_scope ON leases (scope);
CREATE INDEX leases_by_tenant ON leases (tenant);
