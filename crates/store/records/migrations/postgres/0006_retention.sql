-- Runs of builds and builds are bounded apart, and so are their leases.
ALTER TABLE leases ADD COLUMN kind TEXT NOT NULL DEFAULT 'build';
CREATE INDEX leases_by_worker ON leases (worker);

-- Which worker built a scope last: its cache is warm there.
ALTER TABLE scopes ADD COLUMN worker BYTEA;

-- Workers that ask for builds.
CREATE TABLE workers (
  id BYTEA PRIMARY KEY,
  slots BIGINT NOT NULL,
  seen_at BIGINT NOT NULL
);
CREATE INDEX workers_by_age ON workers (seen_at);

-- Whether a name was moved to what it leads to, which protects that, or was given with it.
ALTER TABLE aliases ADD COLUMN promoted BIGINT NOT NULL DEFAULT 0;
UPDATE aliases SET promoted = 1 WHERE kind = 'tag';

-- How long builds are kept, as JSON. The empty scope stands for the whole tenant.
CREATE TABLE retention (
  tenant BYTEA NOT NULL,
  scope TEXT NOT NULL,
  policy TEXT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, scope)
);

-- Builds that have ended, with what they still have: NULL bytes say that there is no log or no
-- artifact (any more). Those that are spared for now are neither counted nor looked at before.
CREATE TABLE kept (
  build BIGINT PRIMARY KEY,
  scope BIGINT NOT NULL,
  dialect TEXT NOT NULL,
  ended_at BIGINT NOT NULL,
  log_bytes BIGINT,
  artifact_bytes BIGINT,
  spared_until BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX kept_records ON kept (scope, dialect, ended_at, build) WHERE spared_until = 0;
CREATE INDEX kept_logs ON kept (scope, dialect, ended_at, build)
  WHERE spared_until = 0 AND log_bytes IS NOT NULL;
CREATE INDEX kept_artifacts ON kept (scope, dialect, ended_at, build)
  WHERE spared_until = 0 AND artifact_bytes IS NOT NULL;
CREATE INDEX kept_spared ON kept (spared_until) WHERE spared_until > 0;
CREATE INDEX kept_exempt ON kept (scope, dialect, ended_at) WHERE spared_until > 0;

-- Sums over `kept` without what is spared.
CREATE TABLE kept_totals (
  scope BIGINT NOT NULL,
  dialect TEXT NOT NULL,
  records BIGINT NOT NULL,
  logs BIGINT NOT NULL,
  log_bytes BIGINT NOT NULL,
  artifacts BIGINT NOT NULL,
  artifact_bytes BIGINT NOT NULL,
  PRIMARY KEY (scope, dialect)
);

-- The newest success of each name in a scope.
CREATE TABLE last_good (
  scope BIGINT NOT NULL,
  name TEXT NOT NULL,
  build BIGINT NOT NULL,
  PRIMARY KEY (scope, name)
);
CREATE INDEX last_good_by_build ON last_good (build);

-- Blobs that builds and documents need; 0 where it is the other one.
CREATE TABLE holds (
  digest BYTEA NOT NULL,
  build BIGINT NOT NULL,
  document BIGINT NOT NULL,
  context BIGINT NOT NULL,
  PRIMARY KEY (digest, build, document)
);
CREATE INDEX holds_by_build ON holds (build) WHERE build > 0;
CREATE INDEX holds_by_document ON holds (document) WHERE document > 0;

-- What ended before this schema.
INSERT INTO kept (build, scope, dialect, ended_at, log_bytes, artifact_bytes, spared_until)
  SELECT position, scope, record::json #>> '{submission,dialect}', finished_at, 0,
    CASE WHEN json_array_length(record::json -> 'artifacts') > 0 THEN 0 END,
    CASE WHEN record::json ->> 'pinned' = 'true' THEN 9223372036854775807 ELSE 0 END
  FROM builds WHERE finished_at IS NOT NULL;
INSERT INTO kept_totals (scope, dialect, records, logs, log_bytes, artifacts, artifact_bytes)
  SELECT scope, dialect, COUNT(*), COUNT(log_bytes), SUM(log_bytes), COUNT(artifact_bytes),
    COALESCE(SUM(artifact_bytes), 0)
  FROM kept WHERE spared_until = 0 GROUP BY scope, dialect;
INSERT INTO last_good (scope, name, build)
  SELECT scope, record::json ->> 'name', MAX(position)
  FROM builds WHERE state = 'succeeded' GROUP BY 1, 2;
