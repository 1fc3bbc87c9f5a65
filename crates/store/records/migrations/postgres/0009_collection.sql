-- When a right to a blob was last used, and whether the blob is a context, which needs the files
-- that it lists. Rights that are there already count from now on.
ALTER TABLE grants ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN context BIGINT NOT NULL DEFAULT 0;
UPDATE grants SET used_at = CAST(EXTRACT(EPOCH FROM now()) AS BIGINT) * 1000000000,
  context = CASE WHEN digest IN (SELECT digest FROM holds WHERE context = 1) THEN 1 ELSE 0 END;
CREATE INDEX grants_by_digest ON grants (digest);
CREATE INDEX grants_contexts ON grants (digest, tenant) WHERE context = 1;

-- Who may read content that is not everybody's, where several servers share a blob store. The nil
-- tenant stands for everybody, the largest for nobody; of a digest without a row nothing is known.
CREATE TABLE readers (
  digest BYTEA NOT NULL,
  tenant BYTEA NOT NULL,
  PRIMARY KEY (digest, tenant)
);

-- Objects of the blob store that are being removed: who needs one waits and stores it again.
CREATE TABLE removals (
  digest BYTEA PRIMARY KEY,
  began_at BIGINT NOT NULL
);
CREATE INDEX removals_by_age ON removals (began_at);

-- Work that one server of all does at a time: whose turn it is, until when unless it is prolonged,
-- and when it was last done.
CREATE TABLE duties (
  name TEXT PRIMARY KEY,
  holder BYTEA NOT NULL,
  until BIGINT NOT NULL,
  done_at BIGINT NOT NULL
);

-- Images whose record is an object: 2 says that a held blob is such a record.
INSERT INTO holds (digest, build, document, context)
  SELECT DISTINCT decode(substr(r.value, 15), 'hex'), b.position, 0, 2
  FROM builds b, json_array_elements(b.record::json -> 'artifacts') a(value),
    json_array_elements_text(a.value -> 'references') r(value)
  WHERE a.value ->> 'kind' = 'image' AND r.value ~ '^record:sha256:[0-9a-f]{64}$'
  ON CONFLICT DO NOTHING;
