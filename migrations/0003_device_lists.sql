-- Lists of devices at scale: search by part of a text, sorting, and what a list's first page costs.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
-- Lets the organisation lead an index that is made of trigrams or of labels.
CREATE EXTENSION IF NOT EXISTS btree_gin;

-- What is searched in, in one column, so that one index serves it. No field holds a line feed, so
-- no search matches across two of them.
ALTER TABLE devices ADD COLUMN search text GENERATED ALWAYS AS
    (lower(hostname || E'\n' || uuid || E'\n' || coalesce(serial_number, ''))) STORED;
CREATE INDEX devices_search ON devices USING gin (organization_id, search gin_trgm_ops);
CREATE INDEX devices_labels ON devices USING gin (organization_id, labels jsonb_path_ops);

-- Lists leave unenrolled devices out unless they are asked for.
CREATE INDEX devices_listed ON devices (organization_id, id) WHERE status <> 'unenrolled';
CREATE INDEX devices_hostname ON devices (organization_id, hostname, id) WHERE status <> 'unenrolled';
CREATE INDEX devices_enrolled_at ON devices (organization_id, enrolled_at, id) WHERE status <> 'unenrolled';
CREATE INDEX devices_platform ON devices (organization_id, platform, id) WHERE status <> 'unenrolled';
CREATE INDEX devices_status ON devices (organization_id, status, id);

-- Counts what changes a device's effective policies and applications; see organizations.
ALTER TABLE devices ADD COLUMN policy_revision bigint NOT NULL DEFAULT 0;
-- Counts what changes policies for many devices at once. A device is told the sum of its own
-- count and this one: both only grow, so whatever changes makes another number.
ALTER TABLE organizations ADD COLUMN policy_revision bigint NOT NULL DEFAULT 0;
-- For which number the device was last sent the commands that its applications need.
ALTER TABLE devices ADD COLUMN applied_revision bigint NOT NULL DEFAULT 0;

-- What a device reported beside its hardware_info, a document per kind ('software').
CREATE TABLE device_inventories (
    organization_id uuid NOT NULL,
    device_id       uuid NOT NULL,
    kind            text NOT NULL,
    data            jsonb NOT NULL,
    observed_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, device_id, kind),
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id)
);

CREATE INDEX commands_newest ON commands (organization_id, id);
