-- Renew the lease, advance the sequence and insert the batch, if the incarnation may (R4).
--
-- The lock on the incarnation's row comes before any insert: the sort needs all of its input first.
-- The sort keeps two coordinators' batches from a deadlock over their request_ids, and lets the
-- first of two equal request_ids within the batch win. HOLD is read as it was when the statement
-- began; one that came meanwhile has fenced the row, which is looked at again once it is locked.
-- No row: nothing was done.
WITH renewed AS (
    UPDATE txlog.incarnations
    SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
        last_sequence = last_sequence + %(advance)s
    WHERE incarnation = %(incarnation)s
      AND fenced_at IS NULL
      AND last_sequence = %(expected)s
      AND timeline = txlog.current_timeline()
      AND (%(advance)s = 0 OR NOT EXISTS (SELECT FROM txlog.log WHERE held_since IS NOT NULL))
    RETURNING incarnation, last_sequence
), inserted AS (
    INSERT INTO txlog.decisions
        (xid, incarnation, sequence, decision, prepared, tenant, request_id, request_digest, reason, results)
    SELECT record.xid, renewed.incarnation, %(expected)s + record.place, record.decision,
           string_to_array(record.prepared, ','), record.tenant, record.request_id, record.digest,
           record.reason, record.results
    FROM renewed,
         unnest(%(xids)s, %(decisions)s,
                string_to_array(%(prepared)s, E'\x1f', ''),
                string_to_array(%(tenants)s, E'\x1f', ''),
                string_to_array(%(request_ids)s, E'\x1f', ''),
                %(digests)s,
                string_to_array(%(reasons)s, E'\x1f', ''),
                string_to_array(%(results)s, E'\x1f', ''))
         WITH ORDINALITY AS record (xid, decision, prepared, tenant, request_id, digest, reason, results, place)
    ORDER BY record.tenant, record.request_id, record.place
    ON CONFLICT DO NOTHING
    RETURNING sequence
)
SELECT renewed.last_sequence,
       -- The sequences inserted, where some were not; NULL where all were.
       (SELECT CASE WHEN count(*) < %(count)s THEN coalesce(array_agg(sequence), '{}') END FROM inserted)
FROM renewed
