-- Blobs that hold the log of ended builds, as frames of rows that follow each other. The rows
-- themselves are replaced by one a frame that points there.
CREATE TABLE segments (
  build INTEGER NOT NULL,
  number INTEGER NOT NULL,
  last INTEGER NOT NULL,
  time INTEGER NOT NULL,
  last_time INTEGER NOT NULL,
  digest BLOB NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (build, number)
) STRICT, WITHOUT ROWID;

-- Ended builds whose log was not moved into segments yet.
CREATE TABLE ended_logs (
  build INTEGER PRIMARY KEY
) STRICT;
INSERT INTO ended_logs (build) SELECT position FROM builds WHERE finished_at IS NOT NULL;
