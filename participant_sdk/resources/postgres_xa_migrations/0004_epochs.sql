-- Adopting an epoch is a barrier (R15): once it is adopted no Commit of a lower one is stored, by whatever process, and
-- the watermarks read then tell of all that were. What is stored is carried out: COMMIT PREPARED can come later.
--
-- Who stores decisions holds the log's lock, shared, from before it looks at the epoch until that has ended; who
-- raises the epoch holds it alone. The epoch is read in a later statement than the lock's, because READ COMMITTED
-- shows a statement what was true before it waited.
-- Adopt the epoch if it is higher; returns the one in force afterwards, durably.
create or replace function pincex_xa.adopt(a_participant text, a_log_id text, a_epoch bigint) returns bigint
language plpgsql as $$
declare
    adopted bigint;
begin
    if a_epoch > coalesce(
        (select e.epoch from pincex_xa.epochs e where e.participant = a_participant and e.log_id = a_log_id), 0
    ) then
        perform pg_advisory_xact_lock(hashtext('pincex_xa.epoch'), hashtext(a_participant || ':' || a_log_id));
    end if;
    insert into pincex_xa.epochs as e (participant, log_id, epoch) values (a_participant, a_log_id, a_epoch)
    on conflict (participant, log_id) do update set epoch = greatest(e.epoch, excluded.epoch)
    returning e.epoch into adopted;
    return adopted;
end
$$;

-- Stores decisions by decide(), unless one of them is of an epoch below the one adopted: ``a_epoch`` is the lowest of
-- theirs. Then nothing is stored, and nothing returned.
create function pincex_xa.decide_current(
    a_participant text, a_log_id text, a_epoch bigint, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(hashtext('pincex_xa.epoch'), hashtext(a_participant || ':' || a_log_id));
    if exists (
        select from pincex_xa.epochs e
        where e.participant = a_participant and e.log_id = a_log_id and e.epoch > a_epoch
    ) then
        return;
    end if;
    return query select * from pincex_xa.decide(a_participant, a_log_id, a_xids, a_incarnations, a_sequences);
end
$$;
