-- What an operator has forced, and what comes after.

-- A branch that was forced to ROLLBACK keeps nothing out: its request may come again before anybody has forgotten it
-- (R3). It stays in the index, by which recovery lists it, as one without a request: null requests are all different.
drop index pincex.branches_live;
create unique index branches_live
    on pincex.branches (log, tenant, (case heuristic when 2 then null else request_id end))
    where phase in (2, 5);

-- The Commit of a branch that was forced, and forgotten, finds it COMMITTED without a sequence. It is answered
-- ALREADY_DONE, which the coordinator counts as applied: so it is stored, and the watermark rises (R15).
create function pincex.count_late_commits(
    log_number smallint, worker_number smallint,
    commit_xids uuid[], commit_incarnations bigint[], commit_sequences bigint[]
) returns void
language sql as $$
    with counted as (
        update pincex.branches as b
        set incarnation = c.incarnation, sequence = c.sequence
        from unnest(commit_xids, commit_incarnations, commit_sequences) as c (xid, incarnation, sequence)
        where b.log = log_number and b.xid = c.xid and b.phase + 0 = 3 and b.sequence is null
        returning b.incarnation, b.sequence
    )
    insert into pincex.watermarks as w (log, incarnation, worker, sequence)
    select log_number, c.incarnation, worker_number, max(c.sequence) from counted as c group by c.incarnation
    order by c.incarnation
    on conflict (log, incarnation, worker) do update set sequence = greatest(w.sequence, excluded.sequence)
$$;

-- A batch by apply_batch, unless one of its Commits is of an epoch below the one adopted: ``commit_epoch`` is the
-- lowest of theirs. Then nothing is done, and the one row returned is of part 0, with the epoch adopted for an answer.
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
    were_committed boolean := false;
begin
    if cardinality(commit_xids) > 0 then
        perform pg_advisory_xact_lock_shared(hashtext('pincex.epoch'), log_number);
        select l.epoch into adopted from pincex.logs as l where l.log = log_number;
        if commit_epoch < adopted then
            return query select 0::smallint, 0, 0::smallint, null::smallint, null::smallint, adopted::text;
            return;
        end if;
    end if;
    for part, at, phase, heuristic, vote, answer in
        select b.part, b.at, b.phase, b.heuristic, b.vote, b.answer
        from pincex.apply_batch(
            log_number, worker_number, commit_xids, commit_incarnations, commit_sequences, rollback_xids,
            prepare_xids, prepare_votes, prepare_answers, prepare_tenants, prepare_request_ids, prepare_digests,
            prepare_participants, now_unix_ms, operations
        ) as b
    loop
        were_committed := were_committed or (part = 1 and phase = 3);
        return next;
    end loop;
    if were_committed then
        perform pincex.count_late_commits(
            log_number, worker_number, commit_xids, commit_incarnations, commit_sequences
        );
    end if;
end
$$;
