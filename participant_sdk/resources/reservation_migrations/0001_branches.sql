-- The branches of a participant that works by reservation. One database holds one participant.

-- The decision logs this participant serves, and the highest epoch adopted of each (R15).
-- ``log`` stands for the log id in every other table, because it is narrow.
create table pincex.logs (
    log smallint generated always as identity primary key,
    log_id text collate "C" not null unique,
    epoch bigint not null default 0
);

-- Numbers of branches: the service's own rows name a branch by its number.
create sequence pincex.branch_numbers;

-- One row for each branch: vote, marker, duplicate guard and tombstone at once.
create table pincex.branches (
    -- 2 PREPARED, 3 COMMITTED, 4 ROLLED_BACK, 5 HEURISTIC. There is no work before Prepare here, so no ACTIVE.
    phase smallint not null check (phase between 2 and 5),
    -- 1 PREPARED, 2 READ_ONLY, 3 ROLLED_BACK; null in a tombstone.
    vote smallint,
    -- With HEURISTIC: 1 COMMIT, 2 ROLLBACK.
    heuristic smallint,
    log smallint not null,
    -- Null in a tombstone.
    branch bigint,
    xid uuid not null,
    prepared_unix_ms bigint,
    -- The decision's writer and its sequence there, with COMMITTED.
    incarnation bigint,
    sequence bigint,
    tenant text collate "C",
    request_id text collate "C",
    request_digest bytea,
    -- Names, separated by commas.
    participants text,
    -- What the vote says beyond its kind, as JSON; null where that is nothing.
    answer text,
    -- The operator's, with HEURISTIC.
    reason text,
    primary key (log, xid)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What is in doubt, or ended by hand and not forgotten. Recovery lists it without reading the millions that are
-- finished; and it keeps a second live branch of one request out (R3). Null requests are all different.
create unique index branches_live on pincex.branches (log, tenant, request_id) where phase in (2, 5);

-- The highest sequence applied: one row for each incarnation and worker, so that workers do not queue for one.
create table pincex.watermarks (
    log smallint not null,
    incarnation bigint not null,
    worker smallint not null,
    sequence bigint not null,
    primary key (log, incarnation, worker)
) with (fillfactor = 25);
