-- Branches whose transactions have ended everywhere are dropped (R14). A service's rows outlive them: a row that
-- names a missing branch is sound up to this number, and lost its branch above it.
alter table pincex.logs add column pruned_branch bigint not null default 0;

-- Drop finished branches below an xid, at most so many; returns how many. By the primary key: where nothing is
-- left to drop it reads only what is in doubt or ended by hand there, which stays.
create function pincex.prune(log_number smallint, below uuid, most integer) returns integer
language plpgsql as $$
declare
    dropped integer;
    highest bigint;
begin
    -- What a crash brings back is dropped again: nothing waits for this, and least of all for a standby.
    perform set_config('synchronous_commit', 'off', true);
    with finished as (
        select b.xid from pincex.branches as b
        where b.log = log_number and b.xid < below and b.phase in (3, 4)
        order by b.xid
        limit most
        for update skip locked
    ), gone as (
        delete from pincex.branches as b using finished as f
        where b.log = log_number and b.xid = f.xid
        returning b.branch
    )
    select count(*), max(g.branch) into dropped, highest from gone as g;
    if highest is not null then
        update pincex.logs as l set pruned_branch = greatest(l.pruned_branch, highest) where l.log = log_number;
    end if;
    return dropped;
end
$$;
