-- The license key of an organisation. Enrolments with a limit are counted here, last in their
-- transaction; whoever sets a key first locks the organisation's row FOR UPDATE, which waits for
-- all enrolments under way (their device's foreign key holds it) and lets later ones see the key.
CREATE TABLE licenses (
    organization_id  uuid PRIMARY KEY REFERENCES organizations (id),
    license_key      text NOT NULL,
    license_id       text NOT NULL,
    tier             text NOT NULL,
    device_limit     bigint CHECK (device_limit >= 0),
    devices_enrolled bigint NOT NULL,
    features         jsonb NOT NULL,
    expires_at       timestamptz NOT NULL,
    grace_until      timestamptz NOT NULL,
    -- What was last told of it, so that each step is told once.
    state            text NOT NULL CHECK (state IN ('valid', 'grace', 'expired')),
    installed_at     timestamptz NOT NULL
);
