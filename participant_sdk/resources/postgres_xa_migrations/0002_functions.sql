-- Whoever needs both the prepared transactions and the rows reads pg_prepared_xacts first, and the rows in
-- a later statement. It is not read through the snapshot, and an entry leaves it only after the rows of its
-- transaction can be seen; the other way round, a branch that ends in between would look as if it had never
-- been prepared.
--
-- What is visible, a prepared transaction too, may not have reached a synchronous standby yet: its writer may
-- still be waiting. So look(), which answers from what is stored, writes a record of its own to the WAL, and its
-- commit waits behind all that it saw. A transaction that writes none waits for nothing, though it has a number.

create function pincex_xa.gid(participant text, log_id text, xid uuid) returns text
language sql immutable as $$
    select 'pincex:' || log_id || ':' || xid || ':' || participant
$$;

-- Says no from within an operation: the business refuses unless the condition is true.
create function pincex_xa.expect(condition boolean, reason text, message text) returns void
language plpgsql as $$
begin
    if condition is not true then
        raise exception using errcode = 'PXNO1', message = message, detail = reason;
    end if;
end
$$;

-- The marker: the last statement of a branch before PREPARE TRANSACTION.
create function pincex_xa.mark(a_participant text, a_log_id text, a_xid uuid) returns void
language plpgsql as $$
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
    where b.participant = a_participant and b.log_id = a_log_id and b.xid = a_xid and b.phase = 1;
    if not found then
        raise exception using errcode = 'PXEN1', message = 'the branch ended before it was prepared';
    end if;
end
$$;

-- The GIDs of those branches that are prepared now.
create function pincex_xa.prepared(a_participant text, a_log_id text, a_xids uuid[]) returns text[]
language sql as $$
    select coalesce(array_agg(p.gid), '{}') from pg_prepared_xacts p
    where p.database = current_database()
        and p.gid in (select pincex_xa.gid(a_participant, a_log_id, u) from unnest(a_xids) u)
$$;

-- What is stored of one branch. ``at`` is its place in the question, from 1; ``phase`` is 0 where there is no row.
create type pincex_xa.found as (
    at integer, phase smallint, is_prepared boolean, vote smallint, answer text, heuristic smallint, reason text,
    participants text[], tenant text, request_id text, request_digest bytea, prepared_unix_ms bigint,
    results text[], incarnation bigint, sequence bigint
);

-- One row for each xid asked, in order.
create function pincex_xa.look(a_participant text, a_log_id text, a_xids uuid[]) returns setof pincex_xa.found
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
    left join pincex_xa.branches b on b.participant = a_participant and b.log_id = a_log_id and b.xid = a.xid
    left join pincex_xa.returned r on r.participant = a_participant and r.log_id = a_log_id and r.xid = a.xid
    left join pincex_xa.decisions d on d.participant = a_participant and d.log_id = a_log_id and d.xid = a.xid
    order by a.n;
end
$$;

-- Opens branches: writes the ACTIVE rows of those that are new or were begun and not prepared, and returns
-- the places of those it opened. A branch of a request that another branch lives for is not opened.
create function pincex_xa.open(
    a_participant text, a_log_id text, a_xids uuid[], a_remaining_ms bigint[], a_participants text[],
    a_tenants text[], a_request_ids text[], a_digests bytea[], a_unix_ms bigint
) returns setof integer
language plpgsql as $$
declare
    held text[];
begin
    held := pincex_xa.prepared(a_participant, a_log_id, a_xids);
    return query
    with asked as (
        select a.*, string_to_array(a.joined, ',') as participants
        from unnest(a_xids, a_remaining_ms, a_participants, a_tenants, a_request_ids, a_digests)
            with ordinality a(xid, remaining_ms, joined, tenant, request_id, digest, n)
    ), free as (
        select a.* from asked a
        where a.request_id = '' or not exists (
            select from pincex_xa.branches o
            where o.participant = a_participant and o.log_id = a_log_id and o.tenant = a.tenant
                and o.request_id = a.request_id and o.request_id <> '' and (o.phase in (1, 3) or o.heuristic = 1)
                and o.xid <> a.xid
        )
    ), begun as (
        -- A row that is locked belongs to a backend that is about to prepare it.
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids) and b.phase = 1
            and pincex_xa.gid(a_participant, a_log_id, b.xid) <> all (held)
        for update skip locked
    ), reopened as (
        update pincex_xa.branches b
        set participants = f.participants, tenant = f.tenant, request_id = f.request_id,
            request_digest = f.digest, prepared_unix_ms = a_unix_ms,
            expires_at = clock_timestamp() + f.remaining_ms * interval '1 millisecond'
        from free f join begun using (xid)
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = f.xid and b.phase = 1
        returning b.xid
    ), opened as (
        -- The rows that exist are left out by hand: ON CONFLICT would wait for a prepared transaction.
        insert into pincex_xa.branches (participant, log_id, xid, phase, participants, tenant, request_id,
            request_digest, prepared_unix_ms, expires_at)
        select a_participant, a_log_id, f.xid, 1, f.participants, f.tenant, f.request_id, f.digest, a_unix_ms,
            clock_timestamp() + f.remaining_ms * interval '1 millisecond'
        from free f
        where not exists (
            select from pincex_xa.branches b
            where b.participant = a_participant and b.log_id = a_log_id and b.xid = f.xid
        )
        on conflict do nothing
        returning xid
    )
    select a.n::integer from asked a
    where a.xid in (select xid from reopened union all select xid from opened);
end
$$;

-- Stores the decisions of branches that are prepared, before they are committed; then looks.
create function pincex_xa.decide(
    a_participant text, a_log_id text, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
declare
    held constant text[] := pincex_xa.prepared(a_participant, a_log_id, a_xids);
begin
    insert into pincex_xa.decisions (participant, log_id, xid, incarnation, sequence)
    select a_participant, a_log_id, u.xid, u.incarnation, u.sequence
    from unnest(a_xids, a_incarnations, a_sequences) u(xid, incarnation, sequence)
    where pincex_xa.gid(a_participant, a_log_id, u.xid) = any (held)
    on conflict do nothing;
    return query select * from pincex_xa.look(a_participant, a_log_id, a_xids);
end
$$;

-- Ends branches that are not prepared, as ROLLED_BACK with these votes; leaves a tombstone for those that are
-- not known. Returns the places of those it ended; a row that is locked is about to be prepared, and left.
create function pincex_xa.undo(a_participant text, a_log_id text, a_xids uuid[], a_votes smallint[], a_answers text[])
returns setof integer
language sql as $$
    with asked as (
        select * from unnest(a_xids, a_votes, a_answers) with ordinality a(xid, vote, answer, n)
    ), begun as (
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (a_xids) and b.phase = 1
        for update skip locked
    ), ended as (
        update pincex_xa.branches b set phase = 4, vote = a.vote, answer = a.answer
        from asked a join begun using (xid)
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = a.xid and b.phase = 1
        returning b.xid
    ), tombstones as (
        insert into pincex_xa.branches (participant, log_id, xid, phase, vote, answer)
        select a_participant, a_log_id, a.xid, 4, a.vote, a.answer from asked a
        where not exists (
            select from pincex_xa.branches b
            where b.participant = a_participant and b.log_id = a_log_id and b.xid = a.xid
        )
        on conflict do nothing
        returning xid
    )
    select a.n::integer from asked a
    where a.xid in (select xid from ended union all select xid from tombstones)
$$;

-- Ends branches that were begun, never prepared, and whose time ran out some while ago. Returns their xids.
create function pincex_xa.expire(a_participant text, a_answer text, a_grace interval) returns setof uuid
language sql as $$
    with begun as (
        select b.log_id, b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.phase = 1 and b.expires_at < clock_timestamp() - a_grace
        for update skip locked
    )
    update pincex_xa.branches b set phase = 4, vote = 3, answer = a_answer
    from begun where b.participant = a_participant and b.log_id = begun.log_id and b.xid = begun.xid and b.phase = 1
    returning b.xid
$$;

-- Keeps what an operator forced. The branch is no longer prepared.
create function pincex_xa.force(
    a_participant text, a_log_id text, a_xid uuid, a_heuristic smallint, a_reason text
) returns void
language sql as $$
    update pincex_xa.branches b set phase = 5, heuristic = a_heuristic, reason = a_reason
    where b.participant = a_participant and b.log_id = a_log_id and b.xid = a_xid and b.phase in (1, 3)
$$;

-- Ends a heuristic branch as what it was forced to.
create function pincex_xa.forget(a_participant text, a_log_id text, a_xid uuid) returns void
language sql as $$
    update pincex_xa.branches b set phase = case b.heuristic when 1 then 3 else 4 end, heuristic = null
    where b.participant = a_participant and b.log_id = a_log_id and b.xid = a_xid and b.phase = 5
$$;

-- The xids of a page: prepared and forced branches, and with a_finished those committed above the sequences given.
create function pincex_xa.page(
    a_participant text, a_log_id text, a_finished boolean, a_incarnations bigint[], a_sequences bigint[],
    a_after uuid, a_limit integer
) returns setof uuid
language plpgsql as $$
begin
    return query
    select found.xid from (
        select split_part(p.gid, ':', 3)::uuid as xid from pg_prepared_xacts p
        where p.database = current_database()
            and p.gid ~ ('^pincex:' || a_log_id || ':[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:' || a_participant || '$')
        union
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.phase = 5
        union
        select d.xid from pincex_xa.decisions d
        join pincex_xa.branches b using (participant, log_id, xid)
        left join unnest(a_incarnations, a_sequences) u(incarnation, sequence) on u.incarnation = d.incarnation
        where a_finished and d.participant = a_participant and d.log_id = a_log_id and b.phase = 3
            and d.sequence > coalesce(u.sequence, 0)
    ) found
    where a_after is null or found.xid > a_after
    order by found.xid limit a_limit;
end
$$;

-- The highest sequence per incarnation. Each step jumps to the next incarnation by the index.
create function pincex_xa.watermarks(a_participant text, a_log_id text)
returns table (incarnation bigint, sequence bigint)
language sql as $$
    with recursive known as (
        (select d.incarnation, d.sequence from pincex_xa.decisions d
         where d.participant = a_participant and d.log_id = a_log_id
         order by d.incarnation desc, d.sequence desc limit 1)
        union all
        select n.incarnation, n.sequence from known
        cross join lateral (
            select d.incarnation, d.sequence from pincex_xa.decisions d
            where d.participant = a_participant and d.log_id = a_log_id and d.incarnation < known.incarnation
            order by d.incarnation desc, d.sequence desc limit 1
        ) n
    )
    select known.incarnation, known.sequence from known
$$;

-- Adopts a higher epoch; returns the one held afterwards.
create function pincex_xa.adopt(a_participant text, a_log_id text, a_epoch bigint) returns bigint
language sql as $$
    insert into pincex_xa.epochs as e (participant, log_id, epoch) values (a_participant, a_log_id, a_epoch)
    on conflict (participant, log_id) do update set epoch = greatest(e.epoch, excluded.epoch)
    returning epoch
$$;
