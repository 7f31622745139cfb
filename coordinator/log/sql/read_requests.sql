-- What request_ids are bound to. current_timeline() fails on a standby, whose answer is no answer.
SELECT xid, decision, prepared, tenant, request_id, request_digest, reason, results,
       incarnation, sequence, (extract(epoch FROM decided_at) * 1000)::bigint
FROM unnest(%(tenants)s::text[], %(request_ids)s::text[]) AS asked (tenant, request_id)
JOIN txlog.decisions USING (tenant, request_id)
WHERE txlog.current_timeline() > 0
