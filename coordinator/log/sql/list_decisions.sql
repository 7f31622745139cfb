-- Decisions, newest xid first, below one of them; of one kind, or of both.
SELECT xid, decision, prepared, tenant, request_id, request_digest, reason, results,
       incarnation, sequence, (extract(epoch FROM decided_at) * 1000)::bigint
FROM txlog.decisions
WHERE xid < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND (%(decision)s::smallint IS NULL OR decision = %(decision)s)
ORDER BY xid DESC
LIMIT %(limit)s
