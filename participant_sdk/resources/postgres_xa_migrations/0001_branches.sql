-- What a PostgreSQL XA resource keeps beside the service's own tables.
--
-- A branch's row is written, visibly, before its transaction begins: ACTIVE. The transaction's last
-- statement, mark(), turns it into COMMITTED, so the row is locked while the branch is prepared, shows
-- COMMITTED exactly when the effect shows, and goes back to ACTIVE by ROLLBACK PREPARED. PREPARED is
-- therefore no phase that a row ever has: it is ACTIVE with an entry in pg_prepared_xacts.

create table pincex_xa.branches (
    participant text not null,
    log_id text not null,
    xid uuid not null,
    phase smallint not null check (phase in (1, 3, 4, 5)),
    -- 2 READ_ONLY, 3 ROLLED_BACK; null in a tombstone, and while the branch can still go either way.
    vote smallint,
    -- What the vote says beyond its kind, as JSON.
    answer text,
    heuristic smallint,
    reason text not null default '',
    participants text[] not null default '{}',
    tenant text not null default '',
    request_id text not null default '',
    request_digest bytea not null default '',
    prepared_unix_ms bigint not null default 0,
    expires_at timestamptz,
    primary key (participant, log_id, xid)
);

-- R3: one live branch of a request.
create unique index branches_request
    on pincex_xa.branches (participant, log_id, tenant, request_id)
    where request_id <> '' and (phase in (1, 3) or heuristic = 1);

create index branches_unfinished
    on pincex_xa.branches (participant, log_id, phase) where phase in (1, 5);

-- R15: decisions, stored before COMMIT PREPARED, which can carry nothing. The highest sequence per
-- incarnation is the watermark; there is no row of it that workers would queue for.
create table pincex_xa.decisions (
    participant text not null,
    log_id text not null,
    xid uuid not null,
    incarnation bigint not null,
    sequence bigint not null,
    primary key (participant, log_id, xid)
);

create index decisions_sequence
    on pincex_xa.decisions (participant, log_id, incarnation, sequence);

-- What the operations of a branch returned, stored before it is prepared, because its own row cannot be
-- written from outside afterwards.
create table pincex_xa.returned (
    participant text not null,
    log_id text not null,
    xid uuid not null,
    results text[] not null,
    primary key (participant, log_id, xid)
);

create table pincex_xa.epochs (
    participant text not null,
    log_id text not null,
    epoch bigint not null,
    primary key (participant, log_id)
);
