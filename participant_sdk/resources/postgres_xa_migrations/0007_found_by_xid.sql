-- Each branch is found by its xid, whatever the planner believes of the tables. Statistics of a table that was nearly
-- empty say that a participant and a log have one branch; then the whole log's are read for every batch, or even for
-- every branch, until the table is analyzed again. A subquery with OFFSET 0 is planned by itself, so its only way in
-- is the primary key; a sum keeps a condition on the phase from the partial indexes, which hold all that is live.
--
-- And fewer flushes. An ACTIVE row and a decision need none of their own: PREPARE TRANSACTION and COMMIT PREPARED,
-- which come after them in the WAL, make them durable before anything is promised. What is answered by them without
-- one of those waits behind a record of its own, as before.

-- What was learned of a nearly empty table is wrong for long: planners do better with none than with that.
alter table pincex_xa.branches set (autovacuum_analyze_threshold = 5000);
alter table pincex_xa.decisions set (autovacuum_analyze_threshold = 5000);
alter table pincex_xa.returned set (autovacuum_analyze_threshold = 5000);

-- Of indexes that begin alike the planner takes any, while it believes that there is little in the table. So those that
-- are not by xid begin with something else: a participant and a log as one text, which the primary key cannot find.
drop index pincex_xa.branches_request;
-- R3: one live branch of a request.
create unique index branches_request
    on pincex_xa.branches ((participant || ':' || log_id), tenant, request_id)
    where request_id <> '' and (phase in (1, 3) or heuristic = 1);
drop index pincex_xa.decisions_sequence;
create index decisions_sequence on pincex_xa.decisions ((participant || ':' || log_id), incarnation, sequence);

create or replace function pincex_xa.watermarks(a_participant text, a_log_id text)
returns table (incarnation bigint, sequence bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    whose constant text := a_participant || ':' || a_log_id;
begin
    perform pg_logical_emit_message(true, 'pincex', '');
    return query
    with recursive known as (
        (select d.incarnation, d.sequence from pincex_xa.decisions d
         where d.participant || ':' || d.log_id = whose
         order by d.incarnation desc, d.sequence desc limit 1)
        union all
        select n.incarnation, n.sequence from known
        cross join lateral (
            select d.incarnation, d.sequence from pincex_xa.decisions d
            where d.participant || ':' || d.log_id = whose and d.incarnation < known.incarnation
            order by d.incarnation desc, d.sequence desc limit 1
        ) n
    )
    select m.incarnation, max(m.sequence) from (
        select known.incarnation, known.sequence from known
        union all
        select p.incarnation, p.sequence from pincex_xa.pruned p
        where p.participant = a_participant and p.log_id = a_log_id
    ) m
    group by m.incarnation;
end
$$;

create or replace function pincex_xa.committed_above(
    a_participant text, a_log_id text, a_incarnations bigint[], a_sequences bigint[], a_after uuid, a_limit integer
) returns setof uuid
language plpgsql as $$
declare
    few uuid[];
begin
    few := array(
        select f.xid
        from unnest(a_incarnations, a_sequences) u(incarnation, sequence)
        cross join lateral (
            select d.xid from pincex_xa.decisions d
            where d.participant || ':' || d.log_id = a_participant || ':' || a_log_id
                and d.incarnation = u.incarnation and d.sequence > u.sequence
            order by d.sequence limit 10001
        ) f
        limit 10001
    );
    if cardinality(few) <= 10000 then
        return query
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (few) and b.phase = 3
            and (a_after is null or b.xid > a_after)
        order by b.xid limit a_limit;
    else
        return query
        select d.xid from pincex_xa.decisions d
        join pincex_xa.branches b using (participant, log_id, xid)
        join unnest(a_incarnations, a_sequences) u(incarnation, sequence) on u.incarnation = d.incarnation
        where d.participant = a_participant and d.log_id = a_log_id and b.phase = 3 and d.sequence > u.sequence
            and (a_after is null or d.xid > a_after)
        order by d.xid limit a_limit;
    end if;
end
$$;

-- As before, by its xid: other conditions would do with another index. Its plan is of the service's sessions, whose
-- settings are the service's, so those that matter here are the function's own.
create or replace function pincex_xa.mark(a_participant text, a_log_id text, a_xid uuid) returns void
language plpgsql set enable_seqscan = off as $$
begin
    -- The setting is local to the transaction that began the branch.
    if current_setting('pincex.branch', true) is distinct from a_xid::text then
        raise exception using errcode = 'PXTX1', message = 'the operations ended the transaction of their branch';
    end if;
    if pg_current_xact_id_if_assigned() is null then
        raise exception using errcode = 'PXRO1', message = 'the branch changed nothing';
    end if;
    if current_setting('synchronous_commit') in ('off', 'local') then
        raise exception using errcode = 'PXSC1', message = 'synchronous_commit must not be off or local in a branch';
    end if;
    -- A cancelled wait for a standby is told by a warning alone.
    perform set_config('client_min_messages', 'warning', true);
    update pincex_xa.branches b set phase = 3
    where b.participant = a_participant and b.log_id = a_log_id and b.xid = a_xid and b.phase + 0 = 1;
    if not found then
        raise exception using errcode = 'PXEN1', message = 'the branch ended before it was prepared';
    end if;
end
$$;

-- As before, without a join: those of a participant are compared with the names asked for, each once.
create or replace function pincex_xa.prepared(a_participant text, a_log_id text, a_xids uuid[]) returns text[]
language plpgsql as $$
declare
    asked constant text[] := array(select pincex_xa.gid(a_participant, a_log_id, u) from unnest(a_xids) u);
begin
    return array(
        select p.gid from pg_prepared_xact() p
        where p.gid = any (asked) and p.dbid = (select d.oid from pg_database d where d.datname = current_database())
    );
end
$$;

create or replace function pincex_xa.look_settled(a_participant text, a_log_id text, a_xids uuid[])
returns setof pincex_xa.found
language plpgsql as $$
declare
    held text[];
begin
    perform pg_logical_emit_message(true, 'pincex', '');
    held := pincex_xa.prepared(a_participant, a_log_id, a_xids);
    return query
    select a.n::integer, coalesce(b.phase, 0::smallint), pincex_xa.gid(a_participant, a_log_id, a.xid) = any (held),
        b.vote, b.answer, b.heuristic, b.reason, b.participants, b.tenant, b.request_id, b.request_digest,
        b.prepared_unix_ms, r.results, d.incarnation, d.sequence
    from unnest(a_xids) with ordinality a(xid, n)
    left join lateral (
        select * from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = a.xid offset 0
    ) b on true
    left join lateral (
        select * from pincex_xa.returned r
        where r.participant = a_participant and r.log_id = a_log_id and r.xid = a.xid offset 0
    ) r on true
    left join lateral (
        select * from pincex_xa.decisions d
        where d.participant = a_participant and d.log_id = a_log_id and d.xid = a.xid offset 0
    ) d on true
    order by a.n;
end
$$;

-- As before; but rows are only begun again where there are any, and nothing waits for the disk.
create or replace function pincex_xa.open_settled(
    a_participant text, a_log_id text, a_xids uuid[], a_remaining_ms bigint[], a_participants text[],
    a_tenants text[], a_request_ids text[], a_digests bytea[], a_unix_ms bigint
) returns setof integer
language plpgsql as $$
declare
    known uuid[];
    held text[];
    free integer[];
begin
    perform set_config('synchronous_commit', 'off', true);
    known := array(
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids)
    );
    free := array(
        select a.n from unnest(a_xids, a_tenants, a_request_ids) with ordinality a(xid, tenant, request_id, n)
        where a.request_id = '' or not exists (
            select from pincex_xa.branches o
            where o.participant || ':' || o.log_id = a_participant || ':' || a_log_id and o.tenant = a.tenant
                and o.request_id = a.request_id and o.request_id <> '' and (o.phase in (1, 3) or o.heuristic = 1)
                and o.xid <> a.xid
        )
    );
    if cardinality(known) > 0 then
        held := pincex_xa.prepared(a_participant, a_log_id, a_xids);
        return query
        with begun as (
            -- A row that is locked belongs to a backend that is about to prepare it.
            select b.xid from pincex_xa.branches b
            where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (known) and b.phase + 0 = 1
                and pincex_xa.gid(a_participant, a_log_id, b.xid) <> all (held)
            for update skip locked
        ), places as (
            select f.n, a_xids[f.n] as xid from unnest(free) f(n) where a_xids[f.n] in (select b.xid from begun b)
        )
        update pincex_xa.branches b
        set participants = string_to_array(a_participants[p.n], ','), tenant = a_tenants[p.n],
            request_id = a_request_ids[p.n], request_digest = a_digests[p.n], prepared_unix_ms = a_unix_ms,
            expires_at = clock_timestamp() + a_remaining_ms[p.n] * interval '1 millisecond'
        from places p
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = p.xid and b.phase + 0 = 1
        returning p.n;
    end if;
    return query
    with opened as (
        -- The rows that exist are left out by hand: ON CONFLICT would wait for a prepared transaction.
        insert into pincex_xa.branches (participant, log_id, xid, phase, participants, tenant, request_id,
            request_digest, prepared_unix_ms, expires_at)
        select a_participant, a_log_id, a_xids[f.n], 1, string_to_array(a_participants[f.n], ','), a_tenants[f.n],
            a_request_ids[f.n], a_digests[f.n], a_unix_ms,
            clock_timestamp() + a_remaining_ms[f.n] * interval '1 millisecond'
        from unnest(free) f(n)
        where a_xids[f.n] <> all (known)
        on conflict do nothing
        returning xid
    )
    select min(f.n) from unnest(free) f(n) where a_xids[f.n] in (select o.xid from opened o) group by a_xids[f.n];
end
$$;

create or replace function pincex_xa.decide_settled(
    a_participant text, a_log_id text, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
declare
    held constant text[] := pincex_xa.prepared(a_participant, a_log_id, a_xids);
    committed constant uuid[] := array(
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids) and b.phase = 3
    );
begin
    insert into pincex_xa.decisions (participant, log_id, xid, incarnation, sequence)
    select a_participant, a_log_id, u.xid, u.incarnation, u.sequence
    from unnest(a_xids, a_incarnations, a_sequences) u(xid, incarnation, sequence)
    where pincex_xa.gid(a_participant, a_log_id, u.xid) = any (held) or u.xid = any (committed)
    on conflict do nothing;
    return query select * from pincex_xa.look(a_participant, a_log_id, a_xids);
end
$$;

-- Stores decisions as decide_current() does, with error PXEP1 where one of them is of an epoch below the one adopted.
-- What is prepared and has a row is found as expected, and not shown: only the other branches are, durably.
create function pincex_xa.decide_expected(
    a_participant text, a_log_id text, a_epoch bigint, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
declare
    held text[];
    expected uuid[];
    others uuid[];
begin
    perform pg_advisory_xact_lock_shared(hashtext('pincex_xa.epoch'), hashtext(a_participant || ':' || a_log_id));
    if exists (
        select from pincex_xa.epochs e
        where e.participant = a_participant and e.log_id = a_log_id and e.epoch > a_epoch
    ) then
        raise exception using errcode = 'PXEP1', message = 'a higher epoch was adopted';
    end if;
    perform pincex_xa.settle_forced(a_participant);
    held := pincex_xa.prepared(a_participant, a_log_id, a_xids);
    expected := array(
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids) and b.phase + 0 = 1
            and pincex_xa.gid(a_participant, a_log_id, b.xid) = any (held)
    );
    insert into pincex_xa.decisions (participant, log_id, xid, incarnation, sequence)
    select a_participant, a_log_id, u.xid, u.incarnation, u.sequence
    from unnest(a_xids, a_incarnations, a_sequences) u(xid, incarnation, sequence)
    where u.xid = any (expected)
    on conflict do nothing;
    if cardinality(expected) = cardinality(a_xids) then
        perform set_config('synchronous_commit', 'off', true);
        return;
    end if;
    others := array(select u.xid from unnest(a_xids) u(xid) where u.xid <> all (expected));
    return query
    with looked as (
        select d.* from pincex_xa.decide_settled(
            a_participant, a_log_id, others,
            array(select a_incarnations[array_position(a_xids, o)] from unnest(others) o),
            array(select a_sequences[array_position(a_xids, o)] from unnest(others) o)
        ) d
    )
    select array_position(a_xids, others[l.at]), l.phase, l.is_prepared, l.vote, l.answer, l.heuristic, l.reason,
        l.participants, l.tenant, l.request_id, l.request_digest, l.prepared_unix_ms, l.results, l.incarnation,
        l.sequence
    from looked l order by 1;
end
$$;

-- As before, by xid.
create or replace function pincex_xa.undo(
    a_participant text, a_log_id text, a_xids uuid[], a_votes smallint[], a_answers text[]
) returns setof integer
language plpgsql as $$
begin
    return query
    with begun as (
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids) and b.phase + 0 = 1
        for update skip locked
    ), ended as (
        update pincex_xa.branches b
        set phase = 4, vote = a_votes[array_position(a_xids, b.xid)],
            answer = a_answers[array_position(a_xids, b.xid)]
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (array(select xid from begun))
            and b.phase + 0 = 1
        returning b.xid
    ), known as (
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids)
    ), tombstones as (
        insert into pincex_xa.branches (participant, log_id, xid, phase, vote, answer)
        select a_participant, a_log_id, a.xid, 4, a.vote, a.answer
        from unnest(a_xids, a_votes, a_answers) a(xid, vote, answer)
        where a.xid not in (select k.xid from known k)
        on conflict do nothing
        returning xid
    )
    select a.n::integer from unnest(a_xids) with ordinality a(xid, n)
    where a.xid in (select e.xid from ended e union all select t.xid from tombstones t);
end
$$;

-- As before; but a foreign name is never read as if it were one of ours, in whatever order conditions are tried.
create or replace function pincex_xa.page_settled(
    a_participant text, a_log_id text, a_finished boolean, a_incarnations bigint[], a_sequences bigint[],
    a_after uuid, a_limit integer
) returns setof uuid
language plpgsql as $$
declare
    ours constant text :=
        '^pincex:' || a_log_id || ':[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:' || a_participant || '$';
    ahead bigint[];
    ahead_of bigint[];
begin
    if a_finished then
        select array_agg(w.incarnation), array_agg(coalesce(u.sequence, 0)) into ahead, ahead_of
        from pincex_xa.watermarks(a_participant, a_log_id) w
        left join unnest(a_incarnations, a_sequences) u(incarnation, sequence) on u.incarnation = w.incarnation
        where w.sequence > coalesce(u.sequence, 0);
    end if;
    return query
    select found.xid from (
        select case when p.gid ~ ours then split_part(p.gid, ':', 3)::uuid end as xid from pg_prepared_xacts p
        where p.database = current_database() and p.gid ~ ours
        union
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.phase = 5
        union
        select c.xid from pincex_xa.committed_above(a_participant, a_log_id, ahead, ahead_of, a_after, a_limit) c(xid)
        where ahead is not null
    ) found
    where a_after is null or found.xid > a_after
    order by found.xid limit a_limit;
end
$$;
