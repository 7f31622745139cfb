-- The decision log: the only truth about outcomes.

-- The timeline that the server writes now. It fails on a standby, which has none of its own.
CREATE FUNCTION txlog.current_timeline() RETURNS integer
    LANGUAGE sql VOLATILE
    AS $$ SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer $$;

-- One row: what this log is, and whether it is in HOLD.
CREATE TABLE txlog.log (
    singleton            boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    log_id               text NOT NULL CHECK (log_id ~ '^[0-9a-f]{16}$'),
    created_at           timestamptz NOT NULL DEFAULT now(),
    held_since           timestamptz,
    held_reason          text,
    -- Transactions whose xid is older may have been pruned.
    pruned_below_unix_ms bigint NOT NULL DEFAULT 0
);

-- Every life of every coordinator. The row is updated by every batch: room on its page keeps
-- these updates off the index, and early vacuuming keeps the page short.
CREATE TABLE txlog.incarnations (
    incarnation   bigint PRIMARY KEY,
    coordinator   text NOT NULL,
    address       text NOT NULL,
    timeline      integer NOT NULL,
    lease_until   timestamptz NOT NULL,
    last_sequence bigint NOT NULL DEFAULT 0,
    fenced_at     timestamptz,
    fenced_by     bigint,
    CHECK ((fenced_at IS NULL) = (fenced_by IS NULL))
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE INDEX incarnations_fenced_by ON txlog.incarnations (fenced_by) WHERE fenced_by IS NOT NULL;

-- decision: 1 COMMIT, 2 ROLLBACK. Texts, digests and lists that are empty are NULL.
CREATE TABLE txlog.decisions (
    xid            uuid PRIMARY KEY,
    incarnation    bigint NOT NULL,
    sequence       bigint NOT NULL,
    decided_at     timestamptz NOT NULL DEFAULT statement_timestamp(),
    decision       smallint NOT NULL CHECK (decision IN (1, 2)),
    prepared       text[],
    tenant         text,
    request_id     text,
    request_digest bytea,
    reason         text,
    results        text,
    CHECK ((tenant IS NULL) = (request_id IS NULL))
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE UNIQUE INDEX decisions_request ON txlog.decisions (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX decisions_incarnation ON txlog.decisions (incarnation, sequence);

-- How far each incarnation's decisions are finished, but for the stragglers.
CREATE TABLE txlog.checkpoints (
    incarnation      bigint PRIMARY KEY,
    finished_through bigint NOT NULL,
    stragglers       uuid[] NOT NULL,
    written_at       timestamptz NOT NULL
) WITH (fillfactor = 20);

-- Branches that ended against, or without, the decision. heuristic: 1 COMMIT, 2 ROLLBACK, 3 MIXED, 4 HAZARD.
CREATE TABLE txlog.heuristics (
    xid         uuid NOT NULL,
    participant text NOT NULL,
    heuristic   smallint NOT NULL CHECK (heuristic BETWEEN 1 AND 4),
    message     text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (xid, participant)
);
