CREATE TABLE applications (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    name            text NOT NULL,
    app_version     text NOT NULL,
    platform        text NOT NULL,
    description     text,
    file_name       text NOT NULL,
    size            bigint NOT NULL,
    -- SHA-256 in hexadecimal.
    checksum        text NOT NULL,
    version         bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX applications_name ON applications (organization_id, name, id);

-- Assigned things are not deleted: no cascade here.
CREATE TABLE application_devices (
    organization_id uuid NOT NULL,
    application_id  uuid NOT NULL,
    device_id       uuid NOT NULL,
    intent          text NOT NULL CHECK (intent IN ('install', 'available', 'uninstall')),
    assigned_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, application_id, device_id),
    FOREIGN KEY (organization_id, application_id) REFERENCES applications (organization_id, id),
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id)
);
CREATE INDEX application_devices_device ON application_devices (organization_id, device_id, application_id);

CREATE TABLE application_groups (
    organization_id uuid NOT NULL,
    application_id  uuid NOT NULL,
    group_id        uuid NOT NULL,
    intent          text NOT NULL CHECK (intent IN ('install', 'available', 'uninstall')),
    assigned_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, application_id, group_id),
    FOREIGN KEY (organization_id, application_id) REFERENCES applications (organization_id, id),
    FOREIGN KEY (organization_id, group_id) REFERENCES device_groups (organization_id, id)
);
CREATE INDEX application_groups_group ON application_groups (organization_id, group_id, application_id);

-- What a device said of an application: never what it was told to do.
CREATE TABLE application_installs (
    organization_id uuid NOT NULL,
    application_id  uuid NOT NULL,
    device_id       uuid NOT NULL,
    state           text NOT NULL CHECK (state IN ('installing', 'installed', 'uninstalling', 'uninstalled', 'failed')),
    error           text,
    command_id      uuid,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, application_id, device_id),
    FOREIGN KEY (organization_id, application_id) REFERENCES applications (organization_id, id) ON DELETE CASCADE,
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id)
);
CREATE INDEX application_installs_device ON application_installs (organization_id, device_id, application_id);
