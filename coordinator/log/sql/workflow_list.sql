-- Workflows, newest first, below one of them; of one phase, of one kind, or only those that are stuck.
SELECT workflow_id, kind, version, parameters, tenant, request_id, request_digest, incarnation, deadline_unix_ms,
       phase, ended_unix_ms, failure, stuck, cancelled, result, lock_keys
FROM txlog.workflows
WHERE workflow_id < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND (%(phase)s::smallint IS NULL OR phase = %(phase)s)
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (NOT %(is_stuck)s OR stuck IS NOT NULL)
  AND txlog.current_timeline() > 0
ORDER BY workflow_id DESC
LIMIT %(limit)s
