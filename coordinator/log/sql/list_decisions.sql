-- Decisions, newest xid first, below one of them.
SELECT xid, decision, prepared, tenant, request_id, request_digest, reason, results,
       incarnation, sequence, (extract(epoch FROM decided_at) * 1000)::bigint
FROM txlog.decisions
WHERE xid < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY xid DESC
LIMIT %(limit)s
