-- Commits of branches that an operator had forced are found by their xids alone, as other Commits are: joined with
-- their columns, all of a log's branches were read for every batch with a Commit that was told again.

-- As before, but for how the branches are found. There are few of them, if any.
create or replace function pincex.count_late_commits(
    log_number smallint, worker_number smallint,
    commit_xids uuid[], commit_incarnations bigint[], commit_sequences bigint[]
) returns void
language plpgsql as $$
begin
    with counted as (
        update pincex.branches as b
        set
            incarnation = commit_incarnations[array_position(commit_xids, b.xid)],
            sequence = commit_sequences[array_position(commit_xids, b.xid)]
        where b.log = log_number and b.xid = any (commit_xids) and b.phase + 0 = 3 and b.sequence is null
        returning b.incarnation, b.sequence
    )
    insert into pincex.watermarks as w (log, incarnation, worker, sequence)
    select log_number, c.incarnation, worker_number, max(c.sequence) from counted as c group by c.incarnation
    order by c.incarnation
    on conflict (log, incarnation, worker) do update set sequence = greatest(w.sequence, excluded.sequence);
end
$$;

-- What was learned of a nearly empty table is wrong for long: planners do better with none than with that.
alter table pincex.branches set (autovacuum_analyze_threshold = 5000);
