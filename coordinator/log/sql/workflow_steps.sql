-- The steps of these workflows.
SELECT workflow_id, position, name, kind, digest, compensation, is_pivot, phase, round, undo_round, attempts, xid,
       undo_xid, reason, message, results, began_unix_ms, ended_unix_ms
FROM txlog.workflow_steps
WHERE workflow_id = ANY (%(workflow_ids)s)
ORDER BY workflow_id, position
