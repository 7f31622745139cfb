-- Put decisions back, but for those that are there; return those that are not there even now, or contradict.
WITH restored AS MATERIALIZED (
    SELECT *
    FROM unnest(%(xids)s, %(decisions)s,
                string_to_array(%(prepared)s, E'\x1f', ''),
                string_to_array(%(tenants)s, E'\x1f', ''),
                string_to_array(%(request_ids)s, E'\x1f', ''),
                %(digests)s,
                string_to_array(%(reasons)s, E'\x1f', ''),
                string_to_array(%(results)s, E'\x1f', ''),
                %(incarnations)s::bigint[], %(sequences)s::bigint[], %(decided_unix_ms)s::bigint[])
         AS record (xid, decision, prepared, tenant, request_id, digest, reason, results,
                    incarnation, sequence, decided_unix_ms)
), inserted AS (
    INSERT INTO txlog.decisions
        (xid, incarnation, sequence, decision, prepared, tenant, request_id, request_digest, reason, results, decided_at)
    SELECT xid, incarnation, sequence, decision, string_to_array(prepared, ','), tenant, request_id, digest,
           reason, results, to_timestamp(decided_unix_ms / 1000.0)
    FROM restored
    ORDER BY tenant, request_id, sequence
    ON CONFLICT DO NOTHING
    RETURNING xid, incarnation, sequence
), uncovered AS (
    -- A checkpoint that came after the loss must not hide what is put back.
    UPDATE txlog.checkpoints
    SET finished_through = first.sequence - 1
    FROM (SELECT incarnation, min(sequence) AS sequence FROM inserted GROUP BY incarnation) AS first
    WHERE checkpoints.incarnation = first.incarnation AND checkpoints.finished_through >= first.sequence
)
SELECT restored.xid, present.decision, bound.xid
FROM restored
LEFT JOIN txlog.decisions AS present ON present.xid = restored.xid
LEFT JOIN txlog.decisions AS bound ON bound.tenant = restored.tenant AND bound.request_id = restored.request_id
WHERE present.decision <> restored.decision
   OR (present.xid IS NULL AND NOT EXISTS (SELECT FROM inserted WHERE inserted.xid = restored.xid))
LIMIT 1
