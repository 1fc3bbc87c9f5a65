-- Builds that wait for a worker. `queued_at` is when the current wait began, but the order is that
-- in which they were accepted: a build whose worker was lost does not go to the end again.
CREATE TABLE queue (
  build BIGINT PRIMARY KEY,
  tenant BYTEA NOT NULL,
  scope BIGINT NOT NULL,
  kind TEXT NOT NULL,
  backend TEXT NOT NULL,
  priority BIGINT NOT NULL,
  queued_at BIGINT NOT NULL
);
CREATE INDEX queue_by_tenant ON queue (kind, tenant, priority DESC, build, scope, backend);
CREATE INDEX queue_by_scope ON queue (scope, build);

-- When a tenant last got its turn.
CREATE TABLE turns (
  tenant BYTEA PRIMARY KEY,
  at BIGINT NOT NULL
);
