-- An incarnation's decisions that its checkpoint does not call finished.
WITH checkpoint AS (
    SELECT finished_through, stragglers FROM txlog.checkpoints WHERE incarnation = %(incarnation)s
), unfinished AS (
    SELECT xid
    FROM txlog.decisions
    WHERE incarnation = %(incarnation)s
      AND sequence > coalesce((SELECT finished_through FROM checkpoint), 0)
    UNION
    SELECT unnest(stragglers) FROM checkpoint
)
SELECT xid, decision, prepared, tenant, request_id, request_digest, reason, results,
       incarnation, sequence, (extract(epoch FROM decided_at) * 1000)::bigint
FROM unfinished JOIN txlog.decisions USING (xid)
WHERE txlog.current_timeline() > 0
ORDER BY sequence
