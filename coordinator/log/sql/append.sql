-- Renew the lease, advance the sequence and insert the batch, if the incarnation may (R4).
--
-- The lock on the incarnation's row comes before any insert: the sort needs all of its input first.
-- The sort keeps two coordinators' batches from a deadlock over their request_ids, and lets the
-- first of two equal request_ids within the batch win. HOLD is read as it was when the statement
-- began; one that came meanwhile has fenced the row, which is looked at again once it is locked.
-- No row: nothing was done.
--
-- The parameters: $1 lease in seconds, $2 incarnation, $3 expected sequence, $4 advance, $5 count; then the columns,
-- $6 xids, $7 decisions, $8 prepared, $9 tenants, $10 request_ids, $11 digests, $12 reasons, $13 results.
WITH renewed AS (
    UPDATE txlog.incarnations
    SET lease_until = clock_timestamp() + make_interval(secs => $1),
        last_sequence = last_sequence + $4::bigint
    WHERE incarnation = $2
      AND fenced_at IS NULL
      AND last_sequence = $3::bigint
      AND timeline = txlog.current_timeline()
      AND ($4::bigint = 0 OR NOT EXISTS (SELECT FROM txlog.log WHERE held_since IS NOT NULL))
    RETURNING incarnation, last_sequence
), inserted AS (
    INSERT INTO txlog.decisions
        (xid, incarnation, sequence, decision, prepared, tenant, request_id, request_digest, reason, results)
    SELECT record.xid, renewed.incarnation, $3::bigint + record.place, record.decision,
           string_to_array(record.prepared, ','), record.tenant, record.request_id, record.digest,
           record.reason, record.results
    FROM renewed,
         unnest($6::uuid[], $7::smallint[],
                string_to_array($8, E'\x1f', ''),
                string_to_array($9, E'\x1f', ''),
                string_to_array($10, E'\x1f', ''),
                $11::bytea[],
                string_to_array($12, E'\x1f', ''),
                string_to_array($13, E'\x1f', ''))
         WITH ORDINALITY AS record (xid, decision, prepared, tenant, request_id, digest, reason, results, place)
    ORDER BY record.tenant, record.request_id, record.place
    ON CONFLICT DO NOTHING
    RETURNING sequence
)
SELECT renewed.last_sequence,
       -- The sequences inserted, where some were not; NULL where all were.
       (SELECT CASE WHEN count(*) < $5::bigint THEN coalesce(array_agg(sequence), '{}') END FROM inserted)
FROM renewed
