CREATE TABLE api_keys (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL,
    name            text NOT NULL,
    key_hash        bytea NOT NULL,
    role            text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- NULL: everything that the role permits.
    scopes          text[],
    expires_at      timestamptz,
    last_used_at    timestamptz,
    created_by      uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id),
    -- A key acts for the user who made it, and goes with that user.
    FOREIGN KEY (organization_id, created_by) REFERENCES users (organization_id, id) ON DELETE CASCADE
);
-- A request brings the key only.
CREATE UNIQUE INDEX api_keys_hash ON api_keys (key_hash);

ALTER TABLE users ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE enrollment_secrets ADD COLUMN version bigint NOT NULL DEFAULT 1;

-- The first outcome of each POST that brought an Idempotency-Key, for 24 hours.
--
-- A row is reserved before the request is carried out, with a token of its own. The request's
-- transaction marks it as carried out and checks the token, so that of two that hold the
-- reservation in turn only one commits. The answer is added after the commit.
CREATE TABLE idempotency_keys (
    -- The caller: a hash of the organisation and the user, API key or device.
    scope        bytea NOT NULL,
    key          text NOT NULL,
    digest       bytea NOT NULL,
    reservation  uuid NOT NULL,
    reserved_at  timestamptz NOT NULL,
    carried_out  boolean NOT NULL DEFAULT false,
    status       smallint,
    -- Sealed: an answer may hold a token.
    answer       bytea,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (reserved_at);
