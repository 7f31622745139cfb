-- Fence every live incarnation whose lease expired, if this one may (R6); adopt those that ended by themselves
-- or by HOLD; and list those to take over.
WITH RECURSIVE ordered AS MATERIALIZED (
    -- The log's row is locked before incarnations', as by those who open and hold. It is a write: only
    -- where there is something to do.
    SELECT log_id
    FROM txlog.log
    WHERE EXISTS (
        SELECT FROM txlog.incarnations
        WHERE fenced_by = 0
           OR (NOT %(resigned_only)s AND incarnation <> %(incarnation)s
               AND fenced_at IS NULL AND lease_until < clock_timestamp())
    )
    FOR UPDATE
), fencer AS MATERIALIZED (
    SELECT incarnation
    FROM txlog.incarnations
    WHERE EXISTS (SELECT FROM ordered)
      AND incarnation = %(incarnation)s
      AND fenced_at IS NULL
      AND lease_until > clock_timestamp()
      AND timeline = txlog.current_timeline()
    FOR SHARE
), fenced AS (
    UPDATE txlog.incarnations AS other
    SET fenced_at = coalesce(other.fenced_at, clock_timestamp()), fenced_by = fencer.incarnation
    FROM fencer
    WHERE other.fenced_by = 0
       OR (NOT %(resigned_only)s AND other.incarnation <> fencer.incarnation
           AND other.fenced_at IS NULL AND other.lease_until < clock_timestamp())
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
-- A straggler whose row is pruned was finished all the same.
WHERE EXISTS (SELECT FROM txlog.decisions WHERE decisions.xid = ANY (checkpoints.stragglers))
   OR EXISTS (
       SELECT FROM txlog.decisions
       WHERE decisions.incarnation = adopted.incarnation
         AND decisions.sequence > coalesce(checkpoints.finished_through, 0)
   )
ORDER BY adopted.incarnation
