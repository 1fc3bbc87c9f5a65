-- Runs of builds and builds are bounded apart, and so are their leases.
ALTER TABLE leases ADD COLUMN kind TEXT NOT NULL DEFAULT 'build';
CREATE INDEX leases_by_worker ON leases (worker);

-- Which worker built a scope last: its cache is warm there.
ALTER TABLE scopes ADD COLUMN worker BLOB;

-- Workers that ask for builds.
CREATE TABLE workers (
  id BLOB PRIMARY KEY,
  slots INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workers_by_age ON workers (seen_at);

-- Whether a name was moved to what it leads to, which protects that, or was given with it.
ALTER TABLE aliases ADD COLUMN promoted INTEGER NOT NULL DEFAULT 0;
UPDATE aliases SET promoted = 1 WHERE kind = 'tag';

-- How long builds are kept, as JSON. The empty scope stands for the whole tenant.
CREATE TABLE retention (
  tenant BLOB NOT NULL,
  scope TEXT NOT NULL,
  policy TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;

-- Builds that have ended, with what they still have: NULL bytes say that there is no log or no
-- artifact (any more). Those that are spared for now are neither counted nor looked at before.
CREATE TABLE kept (
  build INTEGER PRIMARY KEY,
  scope INTEGER NOT NULL,
  dialect TEXT NOT NULL,
  ended_at INTEGER NOT NULL,
  log_bytes INTEGER,
  artifact_bytes INTEGER,
  spared_until INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX kept_records ON kept (scope, dialect, ended_at, build) WHERE spared_until = 0;
CREATE INDEX kept_logs ON kept (scope, dialect, ended_at, build)
  WHERE spared_until = 0 AND log_bytes IS NOT NULL;
CREATE INDEX kept_artifacts ON kept (scope, dialect, ended_at, build)
  WHERE spared_until = 0 AND artifact_bytes IS NOT NULL;
CREATE INDEX kept_spared ON kept (spared_until) WHERE spared_until > 0;
CREATE INDEX kept_exempt ON kept (scope, dialect, ended_at) WHERE spared_until > 0;

-- Sums over `kept` without what is spared.
CREATE TABLE kept_totals (
  scope INTEGER NOT NULL,
  dialect TEXT NOT NULL,
  records INTEGER NOT NULL,
  logs INTEGER NOT NULL,
  log_bytes INTEGER NOT NULL,
  artifacts INTEGER NOT NULL,
  artifact_bytes INTEGER NOT NULL,
  PRIMARY KEY (scope, dialect)
) STRICT, WITHOUT ROWID;

-- The newest success of each name in a scope.
CREATE TABLE last_good (
  scope INTEGER NOT NULL,
  name TEXT NOT NULL,
  build INTEGER NOT NULL,
  PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX last_good_by_build ON last_good (build);

-- Blobs that builds and documents need; 0 where it is the other one.
CREATE TABLE holds (
  digest BLOB NOT NULL,
  build INTEGER NOT NULL,
  document INTEGER NOT NULL,
  context INTEGER NOT NULL,
  PRIMARY KEY (digest, build, document)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_by_build ON holds (build) WHERE build > 0;
CREATE INDEX holds_by_document ON holds (document) WHERE document > 0;

-- What ended before this schema.
INSERT INTO kept (build, scope, dialect, ended_at, log_bytes, artifact_bytes, spared_until)
  SELECT position, scope, json_extract(record, '$.submission.dialect'), finished_at, 0,
    CASE WHEN json_array_length(record, '$.artifacts') > 0 THEN 0 END,
    CASE WHEN json_extract(record, '$.pinned') THEN 9223372036854775807 ELSE 0 END
  FROM builds WHERE finished_at IS NOT NULL;
INSERT INTO kept_totals (scope, dialect, records, logs, log_bytes, artifacts, artifact_bytes)
  SELECT scope, dialect, COUNT(*), COUNT(log_bytes), SUM(log_bytes), COUNT(artifact_bytes),
    COALESCE(SUM(artifact_bytes), 0)
  FROM kept WHERE spared_until = 0 GROUP BY scope, dialect;
INSERT INTO last_good (scope, name, build)
  SELECT scope, json_extract(record, '$.name'), MAX(position)
  FROM builds WHERE state = 'succeeded' GROUP BY 1, 2;
