-- Mark a transaction's heuristic ends as dealt with. They are kept, and no longer hold the horizon back. That an
-- operator did so, and why, is put down with it: once for each end that was not forgotten before.
WITH forgotten AS (
    UPDATE txlog.heuristics
    SET forgotten_at = clock_timestamp(), forgotten_reason = %(reason)s
    WHERE xid = %(xid)s AND forgotten_at IS NULL
    RETURNING xid, participant, heuristic, message
), noted AS (
    INSERT INTO txlog.operator_actions (action, xid, participant, detail, reason)
    SELECT 'FORGET', xid, participant, '', %(reason)s FROM forgotten ORDER BY participant
)
SELECT * FROM forgotten ORDER BY participant
