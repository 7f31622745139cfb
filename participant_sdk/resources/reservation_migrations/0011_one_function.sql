-- A batch is one function: each call of one from another starts an executor of its own, which a batch of one branch
-- feels. So do statements that a simple expression can stand in for.

-- A whole batch, as 0002 tells of it, unless one of its Commits is of an epoch below the one adopted: ``commit_epoch``
-- is the lowest of theirs. Then nothing is done, and the one row returned is of part 0, with the epoch adopted for an
-- answer. As before, but for what is said above.
create or replace function pincex.apply_current(
    commit_epoch bigint,
    log_number smallint,
    worker_number smallint,
    commit_xids uuid[],
    commit_incarnations bigint[],
    commit_sequences bigint[],
    rollback_xids uuid[],
    prepare_xids uuid[],
    prepare_votes smallint[],
    prepare_answers text[],
    prepare_tenants text[],
    prepare_request_ids text[],
    prepare_digests bytea[],
    prepare_participants text[],
    now_unix_ms bigint,
    operations jsonb
) returns table (part smallint, at integer, phase smallint, heuristic smallint, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    adopted bigint;
    committed bigint[] := '{}';
    undone bigint[] := '{}';
    buried uuid[] := '{}';
    numbers bigint[] := '{}';
    inserted bigint[];
    is_found boolean := false;
    placed_xids uuid[] := commit_xids;
    placed_incarnations bigint[] := commit_incarnations;
    placed_sequences bigint[] := commit_sequences;
    refused record;
begin
    if cardinality(commit_xids) > 0 then
        perform pg_advisory_xact_lock_shared(hashtext('pincex.epoch'), log_number);
        select l.epoch into adopted from pincex.logs as l where l.log = log_number;
        if commit_epoch < adopted then
            return query select 0::smallint, 0, 0::smallint, null::smallint, null::smallint, adopted::text;
            return;
        end if;
        if cardinality(commit_xids) > 1 then
            select array_agg(c.xid), array_agg(c.incarnation), array_agg(c.sequence)
            into placed_xids, placed_incarnations, placed_sequences
            from (
                select *
                from unnest(commit_xids, commit_incarnations, commit_sequences) as u (xid, incarnation, sequence)
                order by u.xid
            ) as c;
        end if;
        -- The update of the branch's row is the claim: nobody else ends this branch now. The sum keeps the planner
        -- from the partial index of what is live: it would read all of that for every one of these.
        with claimed as (
            update pincex.branches as b
            set
                phase = 3,
                incarnation = placed_incarnations[width_bucket(b.xid, placed_xids)],
                sequence = placed_sequences[width_bucket(b.xid, placed_xids)]
            where b.log = log_number and b.xid = any (placed_xids) and b.phase + 0 = 2
            returning b.branch, b.incarnation, b.sequence
        ), marked as (
            insert into pincex.watermarks as w (log, incarnation, worker, sequence)
            select log_number, c.incarnation, worker_number, max(c.sequence) from claimed as c group by c.incarnation
            order by c.incarnation
            on conflict (log, incarnation, worker) do update set sequence = greatest(w.sequence, excluded.sequence)
        )
        select coalesce(array_agg(c.branch), '{}') into committed from claimed as c;
        if cardinality(committed) < cardinality(commit_xids) then
            is_found := true;
            return query
            select 1::smallint, c.at::integer, coalesce(b.phase, 0::smallint), b.heuristic, null::smallint, null::text
            from unnest(commit_xids) with ordinality as c (xid, at)
            left join pincex.branches as b on b.log = log_number and b.xid = c.xid
            where b.branch is null or b.branch <> all (committed);
            perform pincex.count_late_commits(
                log_number, worker_number, commit_xids, commit_incarnations, commit_sequences
            );
        end if;
    end if;

    if cardinality(rollback_xids) > 0 then
        with claimed as (
            update pincex.branches as b
            set phase = 4
            where b.log = log_number and b.xid = any (rollback_xids) and b.phase + 0 = 2
            returning b.branch
        )
        select coalesce(array_agg(c.branch), '{}') into undone from claimed as c;
        if cardinality(undone) < cardinality(rollback_xids) then
            -- A tombstone keeps the late Prepare out (R10).
            with tombstones as (
                insert into pincex.branches as b (log, xid, phase)
                select log_number, r.xid, 4 from unnest(rollback_xids) as r (xid) order by r.xid
                on conflict do nothing
                returning b.xid
            )
            select coalesce(array_agg(t.xid), '{}') into buried from tombstones as t;
            is_found := is_found or cardinality(undone) + cardinality(buried) < cardinality(rollback_xids);
            return query
            select 2::smallint, r.at::integer, b.phase, b.heuristic, null::smallint, null::text
            from unnest(rollback_xids) with ordinality as r (xid, at)
            join pincex.branches as b on b.log = log_number and b.xid = r.xid
            where (b.branch is null or b.branch <> all (undone)) and b.xid <> all (buried);
        end if;
    end if;

    if cardinality(prepare_xids) > 0 then
        -- Inserting the row is the admission: it meets duplicates, tombstones and live branches of the same
        -- request in one go. In the order of requests, so that two batches cannot wait for each other.
        for place in 1..cardinality(prepare_xids) loop
            numbers[place] := nextval('pincex.branch_numbers');
        end loop;
        begin
            insert into pincex.branches (
                phase, vote, log, branch, xid, prepared_unix_ms,
                tenant, request_id, request_digest, participants, answer
            )
            select
                case p.vote when 1 then 2 else 4 end, p.vote, log_number, p.branch, p.xid, now_unix_ms,
                p.tenant, p.request_id, p.request_digest, p.participants, p.answer
            from unnest(
                prepare_xids, numbers, prepare_votes, prepare_answers,
                prepare_tenants, prepare_request_ids, prepare_digests, prepare_participants
            ) as p (xid, branch, vote, answer, tenant, request_id, request_digest, participants)
            order by p.tenant collate "C", p.request_id collate "C", p.branch;
        exception when unique_violation then
            -- Some are known already. This form asks row by row, and so costs more.
            is_found := true;
            with admitted as (
                insert into pincex.branches as b (
                    phase, vote, log, branch, xid, prepared_unix_ms,
                    tenant, request_id, request_digest, participants, answer
                )
                select
                    case p.vote when 1 then 2 else 4 end, p.vote, log_number, p.branch, p.xid, now_unix_ms,
                    p.tenant, p.request_id, p.request_digest, p.participants, p.answer
                from unnest(
                    prepare_xids, numbers, prepare_votes, prepare_answers,
                    prepare_tenants, prepare_request_ids, prepare_digests, prepare_participants
                ) as p (xid, branch, vote, answer, tenant, request_id, request_digest, participants)
                order by p.tenant collate "C", p.request_id collate "C", p.branch
                on conflict do nothing
                returning b.branch
            )
            select coalesce(array_agg(a.branch), '{}') into inserted from admitted as a;
            numbers := array(
                select case when n.number = any (inserted) then n.number end
                from unnest(numbers) with ordinality as n (number, at) order by n.at
            );
            return query
            select 3::smallint, p.at::integer, coalesce(b.phase, 0::smallint), b.heuristic, b.vote, b.answer
            from unnest(prepare_xids, numbers) with ordinality as p (xid, number, at)
            left join pincex.branches as b on b.log = log_number and b.xid = p.xid
            where p.number is null;
        end;
    end if;

    if is_found then
        perform pg_logical_emit_message(true, 'pincex', '');
    end if;

    for refused in
        select r.at, r.vote, r.answer from apply_operations(committed, undone, numbers, operations) as r
    loop
        update pincex.branches as b
        set phase = 4, vote = refused.vote, answer = refused.answer
        where b.log = log_number and b.xid = prepare_xids[refused.at];
        part := 3;
        at := refused.at;
        phase := 4;
        heuristic := null;
        vote := refused.vote;
        answer := refused.answer;
        return next;
    end loop;
end
$$;

drop function pincex.apply_batch;
