-- Successes by their name, NULL for all other ends, and whether something that one made was removed
-- since. The newest of a name in a scope stays; one that has lost something counts after all others.
ALTER TABLE kept ADD COLUMN good TEXT;
ALTER TABLE kept ADD COLUMN lost BIGINT NOT NULL DEFAULT 0;
CREATE INDEX kept_good ON kept (scope, good, lost, ended_at DESC, build DESC)
  WHERE good IS NOT NULL;
DROP TABLE last_good;
UPDATE kept SET good = b.record::json ->> 'name' FROM builds b
  WHERE b.position = kept.build AND b.state = 'succeeded';

-- Builds, by their ids, that a build which has not ended needs: what it stands on, and the builds of
-- a run.
CREATE TABLE needs (
  build BIGINT NOT NULL,
  needed BYTEA NOT NULL,
  PRIMARY KEY (build, needed)
);
CREATE INDEX needs_by_needed ON needs (needed);

-- Sizes of what ended before sizes were kept. No journal is empty.
UPDATE kept SET log_bytes =
  (SELECT COALESCE(SUM(LENGTH(e.body)), 0) FROM entries e WHERE e.build = kept.build) +
  (SELECT COALESCE(SUM(s.bytes), 0) FROM segments s WHERE s.build = kept.build)
  WHERE log_bytes = 0;
UPDATE kept SET artifact_bytes =
  (SELECT COALESCE(SUM((a.value ->> 'bytes')::BIGINT), 0)
   FROM builds b, json_array_elements(b.record::json -> 'artifacts') a
   WHERE b.position = kept.build)
  WHERE artifact_bytes = 0;
DELETE FROM kept_totals;
INSERT INTO kept_totals (scope, dialect, records, logs, log_bytes, artifacts, artifact_bytes)
  SELECT scope, dialect, COUNT(*), COUNT(log_bytes), COALESCE(SUM(log_bytes), 0),
    COUNT(artifact_bytes), COALESCE(SUM(artifact_bytes), 0)
  FROM kept WHERE spared_until = 0 GROUP BY scope, dialect;

-- Log segments of builds that ended before it was kept who needs which blob. The rest of that, and
-- who needs whom, stands in JSON: the program reads it in the same transaction.
INSERT INTO holds (digest, build, document, context)
  SELECT DISTINCT digest, build, 0, 0 FROM segments WHERE build > 0 ON CONFLICT DO NOTHING;
