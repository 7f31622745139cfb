-- Heuristic ends that are not forgotten, by xid and participant, above one xid.
SELECT xid, participant, heuristic, message
FROM txlog.heuristics
WHERE forgotten_at IS NULL AND xid > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
ORDER BY xid, participant
LIMIT %(limit)s
