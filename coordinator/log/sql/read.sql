-- Decisions of xids and all that they are judged by, in one snapshot on the primary (R7).
-- One row for each xid, or one row without an xid; current_timeline() fails on a standby.
SELECT log.held_since IS NOT NULL, log.pruned_below_unix_ms,
       owner.incarnation, owner.coordinator, owner.address, owner.fenced_at IS NOT NULL, owner.last_sequence,
       decision.xid, decision.decision, decision.prepared, decision.tenant, decision.request_id,
       decision.request_digest, decision.reason, decision.results, decision.incarnation, decision.sequence,
       (extract(epoch FROM decision.decided_at) * 1000)::bigint
FROM txlog.log
CROSS JOIN txlog.current_timeline()
LEFT JOIN unnest(%(xids)s, %(incarnations)s::bigint[]) AS asked (xid, incarnation) ON true
LEFT JOIN txlog.incarnations AS owner ON owner.incarnation = asked.incarnation
LEFT JOIN txlog.decisions AS decision ON decision.xid = asked.xid
