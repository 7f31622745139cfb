-- The workflow of an id, or of a request. current_timeline() fails on a standby, whose answer is no answer.
SELECT workflow_id, kind, version, parameters, tenant, request_id, request_digest, incarnation, deadline_unix_ms,
       phase, ended_unix_ms, failure, stuck, cancelled, result, lock_keys
FROM txlog.workflows
WHERE (workflow_id = %(workflow_id)s OR (tenant = %(tenant)s::text AND request_id = %(request_id)s::text))
  AND txlog.current_timeline() > 0
