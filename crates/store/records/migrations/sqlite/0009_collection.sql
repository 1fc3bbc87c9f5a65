-- When a right to a blob was last used, and whether the blob is a context, which needs the files
-- that it lists. Rights that are there already count from now on.
ALTER TABLE grants ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN context INTEGER NOT NULL DEFAULT 0;
UPDATE grants SET used_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000,
  context = CASE WHEN digest IN (SELECT digest FROM holds WHERE context = 1) THEN 1 ELSE 0 END;
CREATE INDEX grants_by_digest ON grants (digest);
CREATE INDEX grants_contexts ON grants (digest, tenant) WHERE context = 1;

-- Who may read content that is not everybody's, where several servers share a blob store. The nil
-- tenant stands for everybody, the largest for nobody; of a digest without a row nothing is known.
CREATE TABLE readers (
  digest BLOB NOT NULL,
  tenant BLOB NOT NULL,
  PRIMARY KEY (digest, tenant)
) STRICT, WITHOUT ROWID;

-- Objects of the blob store that are being removed: who needs one waits and stores it again.
CREATE TABLE removals (
  digest BLOB PRIMARY KEY,
  began_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX removals_by_age ON removals (began_at);

-- Work that one server of all does at a time: whose turn it is, until when unless it is prolonged,
-- and when it was last done.
CREATE TABLE duties (
  name TEXT PRIMARY KEY,
  holder BLOB NOT NULL,
  until INTEGER NOT NULL,
  done_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Images whose record is an object: 2 says that a held blob is such a record.
INSERT INTO holds (digest, build, document, context)
  SELECT DISTINCT unhex(substr(r.value, 15)), b.position, 0, 2
  FROM builds b, json_each(b.record, '$.artifacts') a, json_each(a.value, '$.references') r
  WHERE json_extract(a.value, '$.kind') = 'image' AND r.value GLOB 'record:sha256:*'
    AND unhex(substr(r.value, 15)) IS NOT NULL
  ON CONFLICT DO NOTHING;
