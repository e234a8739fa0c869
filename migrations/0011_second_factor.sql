-- Time-based one-time passwords (RFC 6238), a user's second factor.
ALTER TABLE users ADD COLUMN totp_enabled boolean NOT NULL DEFAULT false;

CREATE TABLE second_factors (
    organization_id uuid NOT NULL,
    user_id         uuid NOT NULL,
    -- Sealed with the installation's secret key: it is needed in clear to check a code.
    secret          bytea NOT NULL,
    -- The time step of the newest code that was taken: none is taken twice.
    last_step       bigint NOT NULL DEFAULT 0,
    -- Hashes of those that were not used yet.
    recovery_codes  bytea[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, user_id),
    FOREIGN KEY (organization_id, user_id) REFERENCES users (organization_id, id) ON DELETE CASCADE
);
