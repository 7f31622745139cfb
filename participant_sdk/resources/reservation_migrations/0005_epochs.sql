-- Adopting an epoch is a barrier (R15): once it is adopted no Commit of a lower one takes effect, in whatever process
-- or transaction it waits, and the watermarks read then tell of all that did.
--
-- A batch with Commits holds the log's lock, shared, from before it looks at the epoch until it has ended; who raises
-- the epoch holds it alone. The epoch is read in a later statement than the lock's, because READ COMMITTED shows a
-- statement what was true before it waited. The lock is advisory: one of the row would be written to the WAL by every
-- batch. Whoever waits to raise the epoch is not passed by later batches, and gives up after the lock's time-out.
-- A batch by apply_batch, unless one of its Commits is of an epoch below the one adopted: ``commit_epoch`` is the
-- lowest of theirs. Then nothing is done, and the one row returned is of part 0, with the epoch adopted for an answer.
create function pincex.apply_current(
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
begin
    if cardinality(commit_xids) > 0 then
        perform pg_advisory_xact_lock_shared(hashtext('pincex.epoch'), log_number);
        select l.epoch into adopted from pincex.logs as l where l.log = log_number;
        if commit_epoch < adopted then
            return query select 0::smallint, 0, 0::smallint, null::smallint, null::smallint, adopted::text;
            return;
        end if;
    end if;
    return query
    select b.part, b.at, b.phase, b.heuristic, b.vote, b.answer
    from pincex.apply_batch(
        log_number, worker_number, commit_xids, commit_incarnations, commit_sequences, rollback_xids,
        prepare_xids, prepare_votes, prepare_answers, prepare_tenants, prepare_request_ids, prepare_digests,
        prepare_participants, now_unix_ms, operations
    ) as b;
end
$$;

-- Adopt the epoch if it is higher; returns the log's number and the epoch in force afterwards. Zero only makes the log
-- known. What is found is locked, and so written to the WAL: the answer waits for it to be durable.
create function pincex.adopt_epoch(a_log_id text, a_epoch bigint, out number smallint, out adopted bigint)
language plpgsql as $$
begin
    if not exists (select from pincex.logs as l where l.log_id = a_log_id) then
        insert into pincex.logs (log_id) values (a_log_id) on conflict do nothing;
    end if;
    select l.log into number from pincex.logs as l where l.log_id = a_log_id and l.epoch < a_epoch;
    if found then
        perform pg_advisory_xact_lock(hashtext('pincex.epoch'), number);
    end if;
    update pincex.logs as l set epoch = greatest(l.epoch, a_epoch)
    where l.log_id = a_log_id
    returning l.log, l.epoch into number, adopted;
end
$$;
