-- What the service may be holding for a branch: a row from before it is asked until it has said that nothing is left.
-- ``pincex.branches`` has the votes and the decisions; this says which call is under way, or owed.
create table http.held (
    branch bigint primary key,
    log smallint not null,
    xid uuid not null,
    -- 1 TRYING: asked, and the outcome is open. 2 HELD: it said yes. 3 CONFIRMING, 4 CANCELLING: owed to it until it
    -- answers that this is done.
    state smallint not null check (state between 1 and 4),
    -- TRYING: when whoever asked has given up. CONFIRMING, CANCELLING: when the call is to be made next.
    due timestamptz not null,
    attempts integer not null default 0,
    -- Why the last call was not enough.
    fault text not null default '',
    tenant text collate "C",
    request_id text collate "C",
    unique (log, xid)
);

-- One branch of a request holds something at a time (R3). Null requests are all different.
create unique index held_requests on http.held (log, tenant, request_id);
create index held_due on http.held (due) where state <> 2;

-- How long a call that is owed is left to whoever has just taken it.
create function http.lease() returns interval language sql immutable as $$ select interval '30 seconds' $$;

-- The service's part of a batch; see ``pincex.apply_batch``. What ended is owed to the service from now on. A branch to
-- prepare is journalled before the service is asked: its row in ``pincex.branches`` says ROLLED_BACK, transient, which
-- holds if nobody lives to record another answer, and the row here says that a cancel may be owed.
create function http.apply_operations(committed bigint[], undone bigint[], numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    ended integer;
begin
    if cardinality(committed) + cardinality(undone) > 0 then
        update http.held as h
        set state = case when h.branch = any (committed) then 3 else 4 end, due = now() + http.lease()
        where h.branch = any (committed || undone) and h.state = 2;
        get diagnostics ended = row_count;
        if ended < cardinality(committed) + cardinality(undone) then
            raise exception 'a branch in doubt of which nothing is held: see the invariants';
        end if;
    end if;
    if operations = '[]' then
        return;
    end if;
    return query
    with asked as (
        select o.b, o.w, b.branch, b.log, b.xid, b.tenant, b.request_id
        from jsonb_to_recordset(operations) as o (b integer, l text, x uuid, w double precision)
        join pincex.logs as l on l.log_id = o.l
        join pincex.branches as b on b.log = l.log and b.xid = o.x
        where b.branch = numbers[o.b]
    ), trying as (
        insert into http.held as h (branch, log, xid, state, due, tenant, request_id)
        select a.branch, a.log, a.xid, 1, now() + make_interval(secs => a.w), a.tenant, a.request_id
        from asked as a
        -- Forced to COMMIT and not forgotten: nothing is held any more, and the request is not free yet.
        where not exists (
            select from pincex.branches as t
            where t.log = a.log and t.tenant = a.tenant and t.phase in (2, 5)
                and (case t.heuristic when 2 then null else t.request_id end) = a.request_id
        )
        order by a.tenant collate "C", a.request_id collate "C", a.branch
        on conflict (log, tenant, request_id) do nothing
        returning h.branch
    )
    select a.b, 3::smallint, json_build_object(
        'xa_code', 107, 'reason', 'REQUEST_IN_PROGRESS', 'field', '', 'transient', true,
        'message', format('another branch of request %s of %s is held here', a.request_id, a.tenant)
    )::text
    from asked as a
    where a.branch not in (select t.branch from trying as t);
end
$$;

-- Store what the service answered to tries that are open still: a yes is PREPARED from here on, and one that may have
-- left something behind owes a cancel. Returns the places, from 1, of those that were not open any more, with the vote
-- stored meanwhile.
create function http.record_tries(
    a_log_id text, xids uuid[], votes smallint[], answers text[], owing boolean[]
) returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    recorded bigint[];
begin
    with tried as (
        select h.branch, t.vote, t.answer, t.owes
        from unnest(xids, votes, answers, owing) as t (xid, vote, answer, owes)
        join pincex.logs as l on l.log_id = a_log_id
        join http.held as h on h.log = l.log and h.xid = t.xid
        where h.state = 1
        order by h.branch
        for update of h
    ), kept as (
        update http.held as h
        set state = case t.vote when 1 then 2 else 4 end, due = now()
        from tried as t where h.branch = t.branch and (t.vote = 1 or t.owes)
    ), freed as (
        delete from http.held as h using tried as t where h.branch = t.branch and t.vote <> 1 and not t.owes
    ), stored as (
        update pincex.branches as b
        set phase = case t.vote when 1 then 2 else 4 end, vote = t.vote, answer = t.answer
        from tried as t, http.held as h
        where h.branch = t.branch and b.log = h.log and b.xid = h.xid
        returning b.branch
    )
    select coalesce(array_agg(s.branch), '{}') into recorded from stored as s;
    if cardinality(recorded) < cardinality(xids) then
        -- What is found may be visible and not yet durable: the answer waits behind a record of its own.
        perform pg_logical_emit_message(true, 'pincex', '');
        return query
        select t.at::integer, b.vote, b.answer
        from unnest(xids) with ordinality as t (xid, at)
        join pincex.logs as l on l.log_id = a_log_id
        join pincex.branches as b on b.log = l.log and b.xid = t.xid
        where b.branch <> all (recorded);
    end if;
end
$$;

-- What is owed to the service for these branches. With ``giving_up``, a try that is open still is taken for one that
-- owes a cancel: whoever made it has told no vote, and finds that out when it comes to store its answer.
create function http.owed(a_log_id text, xids uuid[], giving_up boolean)
returns table (log_id text, xid uuid, state smallint)
language plpgsql as $$
#variable_conflict use_column
begin
    if giving_up then
        update http.held as h set state = 4, due = now() + http.lease()
        from pincex.logs as l
        where l.log_id = a_log_id and h.log = l.log and h.xid = any (xids) and h.state = 1;
    end if;
    return query
    select a_log_id, h.xid, h.state from http.held as h join pincex.logs as l on l.log = h.log
    where l.log_id = a_log_id and h.xid = any (xids) and h.state in (3, 4);
end
$$;

-- Take what is due, the longest due first, and at most so many: calls to make, and tries whose time has passed.
create function http.take(most integer) returns table (log_id text, xid uuid, state smallint)
language sql as $$
    with due as (
        select h.branch from http.held as h
        where h.state <> 2 and h.due <= now()
        order by h.due
        limit most
        for update skip locked
    )
    update http.held as h
    set state = case h.state when 1 then 4 else h.state end, due = now() + http.lease()
    from due as d, pincex.logs as l
    where h.branch = d.branch and l.log = h.log
    returning l.log_id, h.xid, h.state
$$;
