CREATE TABLE policies (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    name            text NOT NULL,
    description     text,
    -- A platform, or 'all'.
    platform        text NOT NULL,
    -- A tag of the older API; nothing depends on it.
    type            text,
    enabled         boolean NOT NULL,
    configuration   jsonb NOT NULL,
    version         bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX policies_name ON policies (organization_id, name, id);

CREATE TABLE policy_devices (
    organization_id uuid NOT NULL,
    policy_id       uuid NOT NULL,
    device_id       uuid NOT NULL,
    assigned_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, policy_id, device_id),
    FOREIGN KEY (organization_id, policy_id) REFERENCES policies (organization_id, id),
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id)
);
CREATE INDEX policy_devices_device ON policy_devices (organization_id, device_id, policy_id);

-- Without ON DELETE CASCADE: whoever deletes a policy or a group deletes these first, with an
-- event for each.
CREATE TABLE policy_groups (
    organization_id uuid NOT NULL,
    policy_id       uuid NOT NULL,
    group_id        uuid NOT NULL,
    assigned_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, policy_id, group_id),
    FOREIGN KEY (organization_id, policy_id) REFERENCES policies (organization_id, id),
    FOREIGN KEY (organization_id, group_id) REFERENCES device_groups (organization_id, id)
);
CREATE INDEX policy_groups_group ON policy_groups (organization_id, group_id, policy_id);

-- What a device said of a policy. A row of an older version of the policy counts as pending.
CREATE TABLE policy_results (
    organization_id uuid NOT NULL,
    device_id       uuid NOT NULL,
    policy_id       uuid NOT NULL,
    policy_version  bigint NOT NULL,
    state           text NOT NULL CHECK (state IN ('compliant', 'non_compliant', 'error', 'not_applicable')),
    rules           jsonb NOT NULL,
    observed_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, device_id, policy_id),
    FOREIGN KEY (organization_id, device_id) REFERENCES devices (organization_id, id),
    FOREIGN KEY (organization_id, policy_id) REFERENCES policies (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX policy_results_state ON policy_results (organization_id, policy_id, state, device_id);

-- Where a device stands towards each enabled policy that reaches it, and how bad that is: 1 is the
-- worst. The one place that says so; the API's lists, counts and details all ask here.
CREATE FUNCTION effective_compliance(organization uuid, device uuid)
RETURNS TABLE (policy_id uuid, state text, rank integer) LANGUAGE sql STABLE AS $$
    SELECT e.policy_id,
           e.state,
           CASE e.state
               WHEN 'non_compliant' THEN 1
               WHEN 'error' THEN 2
               WHEN 'pending' THEN 3
               WHEN 'compliant' THEN 4
               ELSE 5
           END
      FROM (SELECT p.id AS policy_id,
                   CASE
                       WHEN p.platform NOT IN ('all', d.platform) THEN 'not_applicable'
                       WHEN r.policy_version = p.version THEN r.state
                       ELSE 'pending'
                   END AS state
              FROM devices d
              JOIN (SELECT pd.policy_id
                      FROM policy_devices pd
                     WHERE pd.organization_id = organization AND pd.device_id = device
                     UNION
                    SELECT pg.policy_id
                      FROM group_members m
                      JOIN policy_groups pg
                        ON pg.organization_id = m.organization_id AND pg.group_id = m.group_id
                     WHERE m.organization_id = organization AND m.device_id = device) AS reached
                ON true
              JOIN policies p
                ON p.organization_id = organization AND p.id = reached.policy_id AND p.enabled
              LEFT JOIN policy_results r
                ON r.organization_id = organization AND r.device_id = device AND r.policy_id = p.id
             WHERE d.organization_id = organization
               AND d.id = device) AS e
$$;
