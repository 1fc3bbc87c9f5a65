-- How often a tenant's builds have changed: a page that was listed before is the same page as long
-- as this is the same number. Never goes back; whoever changes a build, from whatever process,
-- changes it in the same transaction. PostgreSQL has none: builds of many scopes are written at the
-- same time there, and all of them would wait for the one row.
CREATE TABLE list_versions (
  tenant BLOB PRIMARY KEY,
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER builds_added AFTER INSERT ON builds BEGIN
  INSERT INTO list_versions (tenant, version) VALUES (NEW.tenant, 1)
    ON CONFLICT (tenant) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER builds_changed AFTER UPDATE ON builds BEGIN
  INSERT INTO list_versions (tenant, version) VALUES (NEW.tenant, 1)
    ON CONFLICT (tenant) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER builds_removed AFTER DELETE ON builds BEGIN
  INSERT INTO list_versions (tenant, version) VALUES (OLD.tenant, 1)
    ON CONFLICT (tenant) DO UPDATE SET version = version + 1;
END;
