-- The COMMITs of incarnations above sequences that a participant prepared, in order.
SELECT decisions.xid, decision, prepared, tenant, request_id, request_digest, reason, results,
       decisions.incarnation, decisions.sequence, (extract(epoch FROM decided_at) * 1000)::bigint
FROM unnest(%(incarnations)s::bigint[], %(sequences)s::bigint[]) AS asked (incarnation, above)
JOIN txlog.decisions ON decisions.incarnation = asked.incarnation AND decisions.sequence > asked.above
WHERE decision = 1 AND %(participant)s::text = ANY (prepared) AND txlog.current_timeline() > 0
ORDER BY decisions.incarnation, decisions.sequence
LIMIT %(limit)s
