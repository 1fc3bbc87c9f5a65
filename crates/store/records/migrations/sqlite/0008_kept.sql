-- Successes by their name, NULL for all other ends, and whether something that one made was removed
-- since. The newest of a name in a scope stays; one that has lost something counts after all others.
ALTER TABLE kept ADD COLUMN good TEXT;
ALTER TABLE kept ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
CREATE INDEX kept_good ON kept (scope, good, lost, ended_at DESC, build DESC)
  WHERE good IS NOT NULL;
DROP TABLE last_good;
UPDATE kept SET good = (SELECT json_extract(b.record, '$.name') FROM builds b
  WHERE b.position = kept.build AND b.state = 'succeeded');

-- Builds, by their ids, that a build which has not ended needs: what it stands on, and the builds of
-- a run.
CREATE TABLE needs (
  build INTEGER NOT NULL,
  needed BLOB NOT NULL,
  PRIMARY KEY (build, needed)
) STRICT, WITHOUT ROWID;
CREATE INDEX needs_by_needed ON needs (needed);
