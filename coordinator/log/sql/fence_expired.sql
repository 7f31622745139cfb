-- Fence every live incarnation whose lease expired, if this one may (R6), and list those to take over.
WITH RECURSIVE fencer AS MATERIALIZED (
    SELECT incarnation
    FROM txlog.incarnations
    WHERE incarnation = %(incarnation)s
      AND fenced_at IS NULL
      AND lease_until > clock_timestamp()
      AND timeline = txlog.current_timeline()
      -- Only where there is one to fence: the lock is a write.
      AND EXISTS (SELECT FROM txlog.incarnations WHERE fenced_at IS NULL AND lease_until < clock_timestamp())
    FOR SHARE
), fenced AS (
    UPDATE txlog.incarnations AS other
    SET fenced_at = clock_timestamp(), fenced_by = fencer.incarnation
    FROM fencer
    WHERE other.fenced_at IS NULL
      AND other.lease_until < clock_timestamp()
      AND other.incarnation <> fencer.incarnation
    RETURNING other.incarnation
), adopted AS (
    (
        SELECT incarnation FROM fenced
        UNION
        SELECT incarnation FROM txlog.incarnations WHERE fenced_by = %(incarnation)s
    )
    UNION
    SELECT victim.incarnation
    FROM adopted JOIN txlog.incarnations AS victim ON victim.fenced_by = adopted.incarnation
)
SELECT adopted.incarnation
FROM adopted LEFT JOIN txlog.checkpoints USING (incarnation)
WHERE checkpoints.stragglers <> '{}'
   OR EXISTS (
       SELECT FROM txlog.decisions
       WHERE decisions.incarnation = adopted.incarnation
         AND decisions.sequence > coalesce(checkpoints.finished_through, 0)
   )
ORDER BY adopted.incarnation
