CREATE TABLE device_groups (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    name            text NOT NULL,
    description     text,
    -- NULL: members by hand only.
    filters         jsonb,
    labels          jsonb NOT NULL,
    -- Devices after this id may have a membership by filter that is not up to date: their turn
    -- comes in batches, each its own transaction. NULL: all are up to date.
    stale_after     uuid,
    version         bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX device_groups_name ON device_groups (organization_id, name, id);
-- What is asked for at each change of a device.
CREATE INDEX device_groups_filtered ON device_groups (organization_id, id) WHERE filters IS NOT NULL;
CREATE INDEX device_groups_stale ON device_groups (organization_id, id) WHERE stale_after IS NOT NULL;

-- A device is a member by hand, by the group's filters, or by both; the row is there as long as
-- one of them holds. Whoever writes here holds the lock of the device's row.
CREATE TABLE group_members (
    organization_id uuid NOT NULL,
    group_id        uuid NOT NULL,
    device_id       uuid NOT NULL,
    by_hand         boolean NOT NULL,
    by_filter       boolean NOT NULL,
    added_at        timestamptz NOT NULL,
    PRIMARY KEY (organization_id, group_id, device_id),
    FOREIGN KEY (organization_id, group_id) REFERENCES device_groups (organization_id, id) ON DELETE CASCADE,
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id),
    CHECK (by_hand OR by_filter)
);
CREATE INDEX group_members_device ON group_members (organization_id, device_id, group_id);

-- Groups that a secret's devices join.
ALTER TABLE enrollment_secrets ADD COLUMN group_ids uuid[] NOT NULL DEFAULT '{}';

-- Uses of secrets without a limit, counted in several rows of which each use takes one at random:
-- enrolments with one secret then do not wait for each other's commit.
CREATE TABLE enrollment_secret_uses (
    organization_id uuid NOT NULL,
    secret_id       uuid NOT NULL,
    slot            smallint NOT NULL,
    uses            integer NOT NULL,
    PRIMARY KEY (organization_id, secret_id, slot),
    FOREIGN KEY (organization_id, secret_id) REFERENCES enrollment_secrets (organization_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);
