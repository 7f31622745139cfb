-- The COMMITs of incarnations above sequences that a participant prepared, in order.
-- Each incarnation's come from its index in order, and no more of them than are wanted.
SELECT found.xid, found.decision, found.prepared, found.tenant, found.request_id, found.request_digest, found.reason,
       found.results, found.incarnation, found.sequence, (extract(epoch FROM found.decided_at) * 1000)::bigint
FROM unnest(%(incarnations)s::bigint[], %(sequences)s::bigint[]) AS asked (incarnation, above)
CROSS JOIN LATERAL (
    SELECT *
    FROM txlog.decisions
    WHERE decisions.incarnation = asked.incarnation
      AND decisions.sequence > asked.above
      AND decision = 1
      AND %(participant)s::text = ANY (prepared)
    ORDER BY decisions.sequence
    LIMIT %(limit)s
) AS found
WHERE txlog.current_timeline() > 0
ORDER BY found.incarnation, found.sequence
LIMIT %(limit)s
