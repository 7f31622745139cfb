-- What the server does for each branch, brought down by what a profile of it showed. A check of a row, and the
-- expressions of an index, are read and planned anew by every statement, so for every branch by its marker. Rows that
-- are inserted where others may be in the way are looked for in every unique index first; and a function of SQL that is
-- less than it says (a uuid becomes text by ``||`` as any type does: STABLE) is called for each row, not written out.

-- Phases are written by the functions alone.
alter table pincex_xa.branches drop constraint branches_phase_check;

-- R3: one live branch of a request. It begins with what the primary key cannot find, as before.
drop index pincex_xa.branches_request;
create unique index branches_request
    on pincex_xa.branches (request_id, tenant, participant, log_id)
    where request_id <> '' and (phase in (1, 3) or heuristic = 1);

create or replace function pincex_xa.gid(participant text, log_id text, xid uuid) returns text
language sql immutable as $$
    select 'pincex:' || log_id || ':' || xid::text || ':' || participant
$$;

-- Those of the branches that are prepared now. Its plan depends on no table, so it is a join.
create function pincex_xa.held(a_participant text, a_log_id text, a_xids uuid[]) returns uuid[]
language plpgsql as $$
begin
    return array(
        select u from unnest(a_xids) u
        where pincex_xa.gid(a_participant, a_log_id, u) in (
            select p.gid from pg_prepared_xact() p
            where p.dbid = (select d.oid from pg_database d where d.datname = current_database())
        )
    );
end
$$;

-- As before, but that rows which another session inserts meanwhile are an error of the whole, as are two of one request
-- or xid in it. Then each is to be opened by itself.
create or replace function pincex_xa.open_settled(
    a_participant text, a_log_id text, a_xids uuid[], a_remaining_ms bigint[], a_participants text[],
    a_tenants text[], a_request_ids text[], a_digests bytea[], a_unix_ms bigint
) returns setof integer
language plpgsql as $$
declare
    known uuid[];
    held uuid[];
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
        held := pincex_xa.held(a_participant, a_log_id, a_xids);
        return query
        with begun as (
            -- A row that is locked belongs to a backend that is about to prepare it.
            select b.xid from pincex_xa.branches b
            where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (known) and b.phase + 0 = 1
                and b.xid <> all (held)
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
        free := array(select f.n from unnest(free) f(n) where a_xids[f.n] <> all (known));
    end if;
    -- The rows that exist are left out by hand, for an insert would wait for one that is prepared.
    insert into pincex_xa.branches (participant, log_id, xid, phase, participants, tenant, request_id,
        request_digest, prepared_unix_ms, expires_at)
    select a_participant, a_log_id, a_xids[f.n], 1, string_to_array(a_participants[f.n], ','), a_tenants[f.n],
        a_request_ids[f.n], a_digests[f.n], a_unix_ms,
        clock_timestamp() + a_remaining_ms[f.n] * interval '1 millisecond'
    from unnest(free) f(n);
    return query select f.n from unnest(free) f(n);
end
$$;

-- As before, by what is held.
create or replace function pincex_xa.decide_expected(
    a_participant text, a_log_id text, a_epoch bigint, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
declare
    held uuid[];
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
    held := pincex_xa.held(a_participant, a_log_id, a_xids);
    expected := array(
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = any (held) and b.phase + 0 = 1
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
