-- Mark a transaction's heuristic ends as dealt with. They are kept, and no longer hold the horizon back.
WITH forgotten AS (
    UPDATE txlog.heuristics
    SET forgotten_at = clock_timestamp(), forgotten_reason = %(reason)s
    WHERE xid = %(xid)s AND forgotten_at IS NULL
    RETURNING xid, participant, heuristic, message
)
SELECT * FROM forgotten ORDER BY participant
