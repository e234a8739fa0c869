-- The tenant. Every other row belongs to one; organization_id leads every primary key and every
-- index that serves a tenant's query, so that the schema can be sharded by it without change.
CREATE TABLE organizations (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);

-- What belongs to the installation and not to a tenant: whether the first start has happened, and
-- a check value that tells whether a node holds the secret key that the stored keys are sealed with.
CREATE TABLE installation (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key_check  bytea NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE users (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    email           text NOT NULL,
    name            text NOT NULL,
    role            text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password_hash   text NOT NULL,
    disabled_at     timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);
-- A login knows no organisation yet: the address alone must find the user, so it is unique overall.
CREATE UNIQUE INDEX users_email ON users (email);
-- Clients of the older API sign in with a name.
CREATE INDEX users_name ON users (name);

CREATE TABLE sessions (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL,
    user_id         uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz NOT NULL,
    ended_at        timestamptz,
    end_reason      text,
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, user_id) REFERENCES users (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX sessions_user ON sessions (organization_id, user_id) WHERE ended_at IS NULL;
-- A starting node asks which sessions ended while tokens of theirs may still be good.
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

-- A used refresh token stays until it expires: seeing it again means that somebody has a copy.
CREATE TABLE refresh_tokens (
    token_hash      bytea PRIMARY KEY,
    organization_id uuid NOT NULL,
    session_id      uuid NOT NULL,
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    FOREIGN KEY (organization_id, session_id) REFERENCES sessions (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (organization_id, session_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

-- Keys of the access tokens. The newest that is not retired signs; all that may still have signed
-- a good token verify. private_key is sealed with the installation's secret key.
CREATE TABLE signing_keys (
    id          uuid PRIMARY KEY,
    public_key  bytea NOT NULL,
    private_key bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    retired_at  timestamptz
);

CREATE TABLE enrollment_secrets (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    name            text NOT NULL,
    secret_hash     bytea NOT NULL,
    labels          jsonb NOT NULL,
    expires_at      timestamptz,
    max_uses        integer CHECK (max_uses > 0),
    uses            integer NOT NULL DEFAULT 0,
    revoked_at      timestamptz,
    created_by      uuid,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id),
    CHECK (max_uses IS NULL OR uses <= max_uses)
);
-- An enrolling device knows no organisation: its secret tells.
CREATE UNIQUE INDEX enrollment_secrets_hash ON enrollment_secrets (secret_hash);

CREATE TABLE devices (
    organization_id      uuid NOT NULL REFERENCES organizations (id),
    id                   uuid NOT NULL,
    uuid                 text NOT NULL,
    hostname             text NOT NULL,
    platform             text NOT NULL,
    os_version           text,
    serial_number        text,
    status               text NOT NULL CHECK (status IN ('pending', 'enrolled', 'online', 'offline', 'unenrolled')),
    last_seen            timestamptz,
    enrolled_at          timestamptz NOT NULL,
    labels               jsonb NOT NULL,
    hardware_info        jsonb NOT NULL,
    hardware_observed_at timestamptz,
    version              bigint NOT NULL DEFAULT 1,
    token_hash           bytea,
    PRIMARY KEY (organization_id, id),
    CONSTRAINT devices_uuid UNIQUE (organization_id, uuid)
)
-- last_seen is written again and again and stands in no index: with room on the page such an
-- update is heap-only and touches no index.
WITH (fillfactor = 80);
-- A device's request brings its token only.
CREATE UNIQUE INDEX devices_token ON devices (token_hash) WHERE token_hash IS NOT NULL;
-- The sweep for devices that fell silent looks at those that are online, of all tenants.
CREATE INDEX devices_online ON devices (organization_id, id) WHERE status = 'online';

CREATE TABLE commands (
    organization_id     uuid NOT NULL,
    id                  uuid NOT NULL,
    device_id           uuid NOT NULL,
    -- Orders a device's commands: given while the device's row is locked, so it follows the order
    -- of the commits.
    sequence            bigint GENERATED ALWAYS AS IDENTITY,
    kind                text NOT NULL,
    parameters          jsonb NOT NULL,
    status              text NOT NULL CHECK (status IN
                        ('pending', 'sent', 'running', 'completed', 'failed', 'expired', 'cancelled', 'unknown')),
    lane                text NOT NULL CHECK (lane IN ('control', 'query', 'software', 'script')),
    destructive         boolean NOT NULL,
    priority            smallint NOT NULL,
    result              jsonb,
    error               text,
    created_by          uuid,
    idempotency_key     text,
    idempotency_digest  bytea,
    created_at          timestamptz NOT NULL,
    sent_at             timestamptz,
    completed_at        timestamptz,
    expires_at          timestamptz NOT NULL,
    attempts            integer NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id)
);
-- The queue is these two partial indexes: a command that ended leaves them, so that their size
-- follows what is waiting and not what ever was.
CREATE INDEX commands_open ON commands (organization_id, device_id, sequence)
    WHERE status IN ('pending', 'sent', 'running');
CREATE INDEX commands_expiry ON commands (expires_at)
    WHERE status IN ('pending', 'sent', 'running');
CREATE INDEX commands_device ON commands (organization_id, device_id, id);
CREATE UNIQUE INDEX commands_idempotency ON commands (organization_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Every step of every command, with its cause.
CREATE TABLE command_transitions (
    organization_id uuid NOT NULL,
    command_id      uuid NOT NULL,
    step            bigint GENERATED ALWAYS AS IDENTITY,
    status          text NOT NULL,
    at              timestamptz NOT NULL,
    node            text NOT NULL,
    cause           text NOT NULL,
    PRIMARY KEY (organization_id, command_id, step),
    FOREIGN KEY (organization_id, command_id) REFERENCES commands (organization_id, id) ON DELETE CASCADE
);
