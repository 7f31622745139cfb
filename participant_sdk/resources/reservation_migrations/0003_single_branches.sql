-- What is done to single branches, away from the batches. They lock the row that they find, which is written to
-- the WAL: so the answer waits for it to be durable, even where nothing is changed.

-- Force a branch in doubt by an operator's hand (R12). Returns what was found; only PREPARED changes.
create function pincex.resolve_branch(
    log_number smallint, branch_xid uuid, forced smallint, why text,
    out was smallint, out how smallint
) language plpgsql as $$
declare
    number bigint;
begin
    select b.phase, b.heuristic, b.branch into was, how, number
    from pincex.branches as b where b.log = log_number and b.xid = branch_xid for update;
    if was is distinct from 2 then
        return;
    end if;
    update pincex.branches as b set phase = 5, heuristic = forced, reason = why
    where b.log = log_number and b.xid = branch_xid;
    if forced = 1 then
        perform apply_operations(array[number], '{}', '{}', '[]');
    else
        perform apply_operations('{}', array[number], '{}', '[]');
    end if;
end
$$;

-- End a heuristic branch as what it was forced to. Returns what was found; only HEURISTIC changes.
create function pincex.forget_branch(
    log_number smallint, branch_xid uuid,
    out was smallint, out how smallint
) language plpgsql as $$
begin
    select b.phase, b.heuristic into was, how
    from pincex.branches as b where b.log = log_number and b.xid = branch_xid for update;
    if was = 5 then
        update pincex.branches as b set phase = case how when 1 then 3 else 4 end
        where b.log = log_number and b.xid = branch_xid;
    end if;
end
$$;

-- Give this session a worker's number that no other live session has: the lowest free one. It is the
-- session's setting pincex.worker from then on.
create function pincex.claim_worker() returns void
language plpgsql as $$
begin
    for number in 1..32767 loop
        if pg_try_advisory_lock(hashtext('pincex.worker'), number) then
            perform set_config('pincex.worker', number::text, false);
            return;
        end if;
    end loop;
    raise exception using errcode = 'too_many_connections', message = 'all 32767 numbers of workers are taken';
end
$$;
