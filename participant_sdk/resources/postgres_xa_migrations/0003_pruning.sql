-- Branches whose transactions have ended everywhere are dropped, with their decisions and results (R14). The
-- watermark must not fall with them (R15): the highest sequence dropped of each incarnation stays.
create table pincex_xa.pruned (
    participant text not null,
    log_id text not null,
    incarnation bigint not null,
    sequence bigint not null,
    primary key (participant, log_id, incarnation)
);

-- Drop finished branches below an xid, at most so many; returns how many. A prepared branch's row shows ACTIVE,
-- and a forced one HEURISTIC, so neither is touched.
create function pincex_xa.prune(a_participant text, a_log_id text, a_below uuid, a_limit integer) returns integer
language plpgsql as $$
declare
    dropped integer;
begin
    -- What a crash brings back is dropped again: nothing waits for this, and least of all for a standby.
    perform set_config('synchronous_commit', 'off', true);
    with finished as (
        select b.xid from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid < a_below and b.phase in (3, 4)
        order by b.xid limit a_limit
        for update skip locked
    ), decided as (
        delete from pincex_xa.decisions d using finished f
        where d.participant = a_participant and d.log_id = a_log_id and d.xid = f.xid
        returning d.incarnation, d.sequence
    ), kept as (
        insert into pincex_xa.pruned as p (participant, log_id, incarnation, sequence)
        select a_participant, a_log_id, d.incarnation, max(d.sequence) from decided d group by d.incarnation
        on conflict (participant, log_id, incarnation)
            do update set sequence = greatest(p.sequence, excluded.sequence)
    ), returned as (
        delete from pincex_xa.returned r using finished f
        where r.participant = a_participant and r.log_id = a_log_id and r.xid = f.xid
    ), gone as (
        delete from pincex_xa.branches b using finished f
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = f.xid
        returning b.xid
    )
    select count(*) into dropped from gone;
    return dropped;
end
$$;

-- The highest sequence per incarnation, dropped ones too. Each step jumps to the next incarnation by the index.
-- The answer waits behind a record of its own, as look()'s does: what is visible may not be durable yet.
create or replace function pincex_xa.watermarks(a_participant text, a_log_id text)
returns table (incarnation bigint, sequence bigint)
language plpgsql as $$
#variable_conflict use_column
begin
    perform pg_logical_emit_message(true, 'pincex', '');
    return query
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
    select m.incarnation, max(m.sequence) from (
        select known.incarnation, known.sequence from known
        union all
        select p.incarnation, p.sequence from pincex_xa.pruned p
        where p.participant = a_participant and p.log_id = a_log_id
    ) m
    group by m.incarnation;
end
$$;

-- Keeps what an operator forced. The branch is no longer prepared; one whose row was lost gets one.
create or replace function pincex_xa.force(
    a_participant text, a_log_id text, a_xid uuid, a_heuristic smallint, a_reason text
) returns void
language sql as $$
    insert into pincex_xa.branches as b (participant, log_id, xid, phase, heuristic, reason)
    values (a_participant, a_log_id, a_xid, 5, a_heuristic, a_reason)
    on conflict (participant, log_id, xid)
        do update set phase = 5, heuristic = excluded.heuristic, reason = excluded.reason where b.phase in (1, 3)
$$;

-- Writes the marker of a branch whose row was lost, after its prepared transaction was committed as decided.
create function pincex_xa.restore(a_participant text, a_log_id text, a_xid uuid) returns void
language sql as $$
    insert into pincex_xa.branches (participant, log_id, xid, phase) values (a_participant, a_log_id, a_xid, 3)
    on conflict do nothing
$$;

-- The branches committed above these sequences, by xid. Where they are few they are found by their decisions'
-- index; where they are many, a page of them is soon full in the order of xids.
create function pincex_xa.committed_above(
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
            where d.participant = a_participant and d.log_id = a_log_id and d.incarnation = u.incarnation
                and d.sequence > u.sequence
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

-- The xids of a page: prepared and forced branches, and with a_finished those committed above the sequences given,
-- zero for incarnations that are not named. A prepared transaction is listed by its name, whether or not a row of
-- it is there.
create or replace function pincex_xa.page(
    a_participant text, a_log_id text, a_finished boolean, a_incarnations bigint[], a_sequences bigint[],
    a_after uuid, a_limit integer
) returns setof uuid
language plpgsql as $$
declare
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
        select split_part(p.gid, ':', 3)::uuid as xid from pg_prepared_xacts p
        where p.database = current_database()
            and p.gid ~ ('^pincex:' || a_log_id || ':[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:' || a_participant || '$')
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
