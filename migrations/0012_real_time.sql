-- The groups that an event is about: those that it names, and those that its device was in when it
-- happened. So a subscriber who follows a group gets the same events live and when it comes back
-- later, whoever has entered or left the group meanwhile.
ALTER TABLE outbox ADD COLUMN group_ids uuid[] NOT NULL DEFAULT '{}';
UPDATE outbox SET group_ids = ARRAY[group_id] WHERE group_id IS NOT NULL;
ALTER TABLE outbox DROP COLUMN group_id;
ALTER TABLE event_log ADD COLUMN group_ids uuid[] NOT NULL DEFAULT '{}';
UPDATE event_log SET group_ids = ARRAY[group_id] WHERE group_id IS NOT NULL;
ALTER TABLE event_log DROP COLUMN group_id;

-- The nodes that run now. Each writes its row every second; who has not for a while is gone. Not
-- logged: after a crash the rows are written anew within a second.
CREATE UNLOGGED TABLE nodes (
    id         uuid PRIMARY KEY,
    version    text NOT NULL,
    is_leader  boolean NOT NULL,
    subscribers bigint NOT NULL,
    devices    bigint NOT NULL,
    started_at timestamptz NOT NULL,
    -- By the database's clock: those of the nodes may differ.
    seen_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Which node carries the request out: what a node that is gone left unfinished need not be waited for.
ALTER TABLE idempotency_keys ADD COLUMN node uuid;

-- Single-use tickets for sockets. Each stands for the credential that it was got with, which is
-- sealed with the installation's secret key.
CREATE TABLE socket_tickets (
    ticket_hash       bytea PRIMARY KEY,
    sealed_credential bytea NOT NULL,
    expires_at        timestamptz NOT NULL
);
CREATE INDEX socket_tickets_expiry ON socket_tickets (expires_at);

CREATE TABLE webhooks (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    id              uuid NOT NULL,
    name            text NOT NULL,
    url             text NOT NULL,
    -- Empty: all types.
    event_types     text[] NOT NULL,
    enabled         boolean NOT NULL,
    -- Why the server disabled it; NULL if a person did.
    disabled_reason text,
    sealed_secret   bytea NOT NULL,
    -- All events up to here were delivered, or are not for this endpoint.
    cursor          text NOT NULL,
    -- Of the event that is being delivered.
    failures        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    next_attempt_at timestamptz,
    last_error      text,
    version         bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX webhooks_name ON webhooks (organization_id, name, id);

-- One row for each attempt.
CREATE TABLE webhook_deliveries (
    organization_id uuid NOT NULL,
    webhook_id      uuid NOT NULL,
    id              uuid NOT NULL,
    event_id        text NOT NULL,
    event_type      text NOT NULL,
    attempt         integer NOT NULL,
    is_replay       boolean NOT NULL,
    delivered       boolean NOT NULL,
    -- The HTTP status, if there was an answer.
    status          smallint,
    error           text,
    duration_ms     integer NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (organization_id, webhook_id, id),
    FOREIGN KEY (organization_id, webhook_id) REFERENCES webhooks (organization_id, id) ON DELETE CASCADE
);
-- Old ones are forgotten.
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (at);
