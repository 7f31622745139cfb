-- Put the log in HOLD and end every live incarnation and their epoch, under the log row's lock (R15).
-- Each row waited for is looked at again: an append under way comes before HOLD, one that queued behind it
-- finds itself fenced. A log that is held keeps its first reason, and nothing is changed.
WITH held AS (
    UPDATE txlog.log
    SET held_since = clock_timestamp(), held_reason = %(reason)s,
        epoch_after = (SELECT coalesce(max(incarnation), 0) FROM txlog.incarnations)
    WHERE held_since IS NULL
    RETURNING held_since
)
UPDATE txlog.incarnations
SET fenced_at = held.held_since, fenced_by = 0
FROM held
WHERE fenced_at IS NULL
