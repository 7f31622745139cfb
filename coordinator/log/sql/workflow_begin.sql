-- Keep a new workflow, if the incarnation may; nothing where its id, or its request, is there already.
WITH live AS MATERIALIZED (
    SELECT incarnation
    FROM txlog.incarnations
    WHERE incarnation = %(incarnation)s
      AND fenced_at IS NULL
      AND timeline = txlog.current_timeline()
      AND NOT EXISTS (SELECT FROM txlog.log WHERE held_since IS NOT NULL)
    -- Whoever fences it waits until this is durable, and then sees it.
    FOR SHARE
)
INSERT INTO txlog.workflows
    (workflow_id, kind, version, parameters, tenant, request_id, request_digest, incarnation, deadline_unix_ms, phase,
     lock_keys)
SELECT %(workflow_id)s, %(kind)s, %(version)s, %(parameters)s, %(tenant)s, %(request_id)s, %(digest)s,
       live.incarnation, %(deadline_unix_ms)s, 1, %(lock_keys)s::text[]
FROM live
ON CONFLICT DO NOTHING
