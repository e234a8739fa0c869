-- Events wait here from their change's commit until the sequencer gives them their place in the
-- log. The id only orders what waits: it is given before the commit, so a reader that followed it
-- would skip a transaction that commits late. It has no foreign key and no second index, because
-- every change in the system pays for them.
CREATE TABLE outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id uuid NOT NULL,
    kind            text NOT NULL,
    audience        smallint NOT NULL,
    device_id       uuid,
    group_id        uuid,
    -- json and not jsonb: it is handed on as written and never looked into, and a text with \u0000
    -- in it (a device may answer so) must not fail the change that it tells of.
    payload         json NOT NULL,
    created_at      timestamptz NOT NULL
)
-- Rows live for milliseconds, so what counts is not the table's size but how many dead rows the
-- sequencer has to step over.
WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 50000
);

-- Where the log ends. Whoever appends to the log locks this row first, so of two sequencers that
-- both hold themselves for the leader one waits and then sees what the other did.
CREATE TABLE stream_head (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Tells this log from every other one; part of the epoch in clients' cursors.
    stream            uuid NOT NULL,
    "offset"          bigint NOT NULL CHECK ("offset" >= 0),
    -- The first offset that no partition is there for.
    partitioned_until bigint NOT NULL,
    CHECK ("offset" < partitioned_until)
)
-- The row is updated once per batch; with room on its page that touches no index.
WITH (fillfactor = 10);
INSERT INTO stream_head (stream, "offset", partitioned_until) VALUES (gen_random_uuid(), 0, 1);

-- The log: what happened, in the one order that every client sees, with offsets without holes.
-- Unlike other tables its key is led by the offset: the log is read along it, by the nodes for all
-- organisations at once. Old events leave with their whole partition, which costs nothing.
CREATE TABLE event_log (
    "offset"        bigint NOT NULL,
    organization_id uuid NOT NULL,
    kind            text NOT NULL,
    audience        smallint NOT NULL,
    device_id       uuid,
    group_id        uuid,
    payload         json NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY ("offset")
) PARTITION BY RANGE ("offset");

-- Makes the partitions that hold the next 2,000,000 offsets, each for 1,000,000, so that the
-- sequencer never stands before an offset without one. The caller holds the lock on stream_head.
-- A table that is attached needs a weaker lock on the log than one that is created as its
-- partition: readers go on.
CREATE FUNCTION event_log_make_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    size  constant bigint := 1000000;
    head  bigint;
    lower bigint;
    name  text;
BEGIN
    SELECT h."offset", h.partitioned_until INTO STRICT head, lower FROM stream_head h;
    WHILE lower <= head + 2 * size LOOP
        name := format('event_log_%s', lower);
        EXECUTE format('CREATE TABLE %I (LIKE event_log INCLUDING ALL)', name);
        -- With the bounds as a check the attachment has nothing to scan.
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK ("offset" >= %s AND "offset" < %s)',
                       name, lower, lower + size);
        EXECUTE format('ALTER TABLE event_log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       name, lower, lower + size);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', name);
        lower := lower + size;
        UPDATE stream_head SET partitioned_until = lower;
    END LOOP;
END
$$;
SELECT event_log_make_partitions();

-- Drops the partitions whose newest event is older than the given moment, never the one with the
-- head. Gives their number. Dropping needs the log for itself for a moment: if a long reader is in
-- the way it gives up rather than queue all others behind it, and the next call tries again.
CREATE FUNCTION event_log_drop_partitions(before timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    head    bigint;
    part    record;
    newest  timestamptz;
    dropped integer := 0;
BEGIN
    SET LOCAL lock_timeout = '1s';
    SELECT h."offset" INTO STRICT head FROM stream_head h;
    FOR part IN
        SELECT c.oid::regclass AS name,
               substring(c.relname FROM '^event_log_([0-9]+)$')::bigint AS lower
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'event_log'::regclass
         ORDER BY 2
    LOOP
        EXIT WHEN part.lower + 1000000 > head;
        EXECUTE format('SELECT created_at FROM %s ORDER BY "offset" DESC LIMIT 1', part.name) INTO newest;
        -- The log must stay without holes: what follows a partition that is kept is kept too.
        EXIT WHEN newest >= before;
        EXECUTE format('DROP TABLE %s', part.name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
