-- Take over unfinished workflows of fenced incarnations, if this one may. One that another takes at this moment is
-- passed over: what was locked is looked at again, and has another owner then.
WITH live AS MATERIALIZED (
    SELECT incarnation
    FROM txlog.incarnations
    WHERE incarnation = %(incarnation)s AND fenced_at IS NULL AND timeline = txlog.current_timeline()
    FOR SHARE
), left_behind AS MATERIALIZED (
    SELECT workflow.workflow_id
    FROM txlog.workflows AS workflow
    JOIN txlog.incarnations AS owner ON owner.incarnation = workflow.incarnation
    WHERE EXISTS (SELECT FROM live) AND workflow.phase IN (1, 2) AND owner.fenced_at IS NOT NULL
    ORDER BY workflow.workflow_id
    LIMIT %(limit)s
    FOR UPDATE OF workflow SKIP LOCKED
)
UPDATE txlog.workflows AS workflow
SET incarnation = live.incarnation
FROM live, left_behind
WHERE workflow.workflow_id = left_behind.workflow_id
RETURNING workflow.workflow_id, kind, version, parameters, tenant, request_id, request_digest, workflow.incarnation,
          deadline_unix_ms, phase, ended_unix_ms, failure, stuck, cancelled, result, lock_keys
