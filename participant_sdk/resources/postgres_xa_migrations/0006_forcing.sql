-- A prepared transaction's row cannot be written from outside, so what an operator forces and why used to be written
-- after it had ended. Whoever was lost in between left it as if it had been decided (R12). So the intent is kept first,
-- and once the branch has ended that way, whoever looks makes it a heuristic.
create table pincex_xa.forcing (
    participant text not null,
    log_id text not null,
    xid uuid not null,
    -- 1 COMMIT, 2 ROLLBACK. Two operators may want both; the branch ends one way.
    heuristic smallint not null check (heuristic in (1, 2)),
    reason text not null,
    primary key (participant, log_id, xid, heuristic)
);

-- Makes heuristics of the branches that have ended as they were about to be forced, and drops what has become of no
-- use. A COMMIT whose decision is stored was decided. A row that is locked is seen by the next look.
create function pincex_xa.settle_forced(a_participant text) returns void
language plpgsql as $$
declare
    held text[];
begin
    if not exists (select from pincex_xa.forcing f where f.participant = a_participant) then
        return;
    end if;
    held := array(select p.gid from pg_prepared_xacts p where p.database = current_database());
    with ended as (
        select b.log_id, b.xid, f.heuristic, f.reason
        from pincex_xa.forcing f join pincex_xa.branches b using (participant, log_id, xid)
        where f.participant = a_participant and pincex_xa.gid(f.participant, f.log_id, f.xid) <> all (held)
            and b.phase = case f.heuristic when 1 then 3 else 1 end
            and (f.heuristic = 2 or not exists (
                select from pincex_xa.decisions d
                where d.participant = f.participant and d.log_id = f.log_id and d.xid = f.xid
            ))
        for update of b skip locked
    )
    update pincex_xa.branches b set phase = 5, heuristic = e.heuristic, reason = e.reason
    from ended e where b.participant = a_participant and b.log_id = e.log_id and b.xid = e.xid;
    delete from pincex_xa.forcing f using pincex_xa.branches b
    where f.participant = a_participant and b.participant = f.participant and b.log_id = f.log_id and b.xid = f.xid
        and pincex_xa.gid(f.participant, f.log_id, f.xid) <> all (held)
        and (b.phase in (4, 5) or (b.phase = 3 and (f.heuristic = 2 or exists (
            select from pincex_xa.decisions d
            where d.participant = f.participant and d.log_id = f.log_id and d.xid = f.xid
        ))));
end
$$;

-- Keeps what an operator is about to force.
create function pincex_xa.intend(
    a_participant text, a_log_id text, a_xid uuid, a_heuristic smallint, a_reason text
) returns void
language sql as $$
    insert into pincex_xa.forcing values (a_participant, a_log_id, a_xid, a_heuristic, a_reason)
    on conflict (participant, log_id, xid, heuristic) do update set reason = excluded.reason
$$;

-- Whatever tells of branches, begins them again or drops them settles first.
alter function pincex_xa.look(text, text, uuid[]) rename to look_settled;

create function pincex_xa.look(a_participant text, a_log_id text, a_xids uuid[]) returns setof pincex_xa.found
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return query select * from pincex_xa.look_settled(a_participant, a_log_id, a_xids);
end
$$;

alter function pincex_xa.decide(text, text, uuid[], bigint[], bigint[]) rename to decide_settled;

create function pincex_xa.decide(
    a_participant text, a_log_id text, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return query
    select * from pincex_xa.decide_settled(a_participant, a_log_id, a_xids, a_incarnations, a_sequences);
end
$$;

alter function pincex_xa.open(text, text, uuid[], bigint[], text[], text[], text[], bytea[], bigint)
    rename to open_settled;

create function pincex_xa.open(
    a_participant text, a_log_id text, a_xids uuid[], a_remaining_ms bigint[], a_participants text[],
    a_tenants text[], a_request_ids text[], a_digests bytea[], a_unix_ms bigint
) returns setof integer
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return query select pincex_xa.open_settled(
        a_participant, a_log_id, a_xids, a_remaining_ms, a_participants, a_tenants, a_request_ids, a_digests, a_unix_ms
    );
end
$$;

alter function pincex_xa.page(text, text, boolean, bigint[], bigint[], uuid, integer) rename to page_settled;

create function pincex_xa.page(
    a_participant text, a_log_id text, a_finished boolean, a_incarnations bigint[], a_sequences bigint[],
    a_after uuid, a_limit integer
) returns setof uuid
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return query select pincex_xa.page_settled(
        a_participant, a_log_id, a_finished, a_incarnations, a_sequences, a_after, a_limit
    );
end
$$;

alter function pincex_xa.expire(text, text, interval) rename to expire_settled;

create function pincex_xa.expire(a_participant text, a_answer text, a_grace interval) returns setof uuid
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return query select pincex_xa.expire_settled(a_participant, a_answer, a_grace);
end
$$;

alter function pincex_xa.prune(text, text, uuid, integer) rename to prune_settled;

create function pincex_xa.prune(a_participant text, a_log_id text, a_below uuid, a_limit integer) returns integer
language plpgsql as $$
begin
    perform pincex_xa.settle_forced(a_participant);
    return pincex_xa.prune_settled(a_participant, a_log_id, a_below, a_limit);
end
$$;
