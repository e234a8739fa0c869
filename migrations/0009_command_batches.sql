-- One command to many devices. Its commands are written in batches, each its own transaction;
-- what is still to be written survives a crash here.
CREATE TABLE command_batches (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    kind            text NOT NULL,
    parameters      jsonb NOT NULL,
    priority        smallint NOT NULL,
    expires_at      timestamptz NOT NULL,
    -- Exactly one of the three.
    device_ids      uuid[],
    group_id        uuid,
    filter          jsonb,
    -- Devices after this id have not got their command yet. NULL: all have.
    pending_after   uuid,
    skipped         bigint NOT NULL DEFAULT 0,
    created_by      uuid,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id),
    CHECK (num_nonnulls(device_ids, group_id, filter) = 1)
);
CREATE INDEX command_batches_pending ON command_batches (organization_id, id) WHERE pending_after IS NOT NULL;

ALTER TABLE commands ADD COLUMN batch_id uuid;
CREATE INDEX commands_batch ON commands (organization_id, batch_id, status) WHERE batch_id IS NOT NULL;
