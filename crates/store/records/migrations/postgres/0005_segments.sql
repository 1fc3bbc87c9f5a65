-- Blobs that hold the log of ended builds, as frames of rows that follow each other. The rows
-- themselves are replaced by one a frame that points there.
CREATE TABLE segments (
  build BIGINT NOT NULL,
  number BIGINT NOT NULL,
  last BIGINT NOT NULL,
  time BIGINT NOT NULL,
  last_time BIGINT NOT NULL,
  digest BYTEA NOT NULL,
  bytes BIGINT NOT NULL,
  PRIMARY KEY (build, number)
);

-- Ended builds whose log was not moved into segments yet.
CREATE TABLE ended_logs (
  build BIGINT PRIMARY KEY
);
INSERT INTO ended_logs (build) SELECT position FROM builds WHERE finished_at IS NOT NULL;

-- Large bodies are compressed already: PostgreSQL need not try again.
ALTER TABLE entries ALTER COLUMN body SET STORAGE EXTERNAL;
