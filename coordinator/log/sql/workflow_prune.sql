-- Delete finished workflows that ended before a retention, and are below the horizon like their decisions (R14).
DELETE FROM txlog.workflows
USING (
    SELECT workflow_id
    FROM txlog.workflows
    WHERE phase IN (3, 4)
      AND workflow_id < (SELECT txlog.lowest_xid(pruned_below_unix_ms) FROM txlog.log)
      AND ended_unix_ms < %(now_unix_ms)s - (%(retention_s)s * 1000)::bigint
    ORDER BY workflow_id
    LIMIT %(limit)s
) AS old
WHERE workflows.workflow_id = old.workflow_id
