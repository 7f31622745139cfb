-- HOLD where no coordinator runs, and a horizon that waits after its end.

-- When HOLD ended last. What nobody could decide meanwhile is not forgotten for a whole retention after (R14, R15).
ALTER TABLE txlog.log ADD COLUMN released_at timestamptz;

-- Puts the log in HOLD and ends every live incarnation and their epoch (R15): whether it did, and was not held
-- already. By hand too, on a copy that was put back, before any coordinator comes to it.
--
-- Under the log row's lock, and forced to disk whatever the session's settings are. Each row waited for is looked
-- at again: an append under way comes before HOLD, one that queued behind it finds itself fenced.
CREATE FUNCTION txlog.hold(a_reason text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM log_id FROM txlog.log FOR UPDATE;
    UPDATE txlog.log
    SET held_since = clock_timestamp(), held_reason = a_reason,
        epoch_after = (SELECT coalesce(max(incarnation), 0) FROM txlog.incarnations)
    WHERE held_since IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE txlog.incarnations SET fenced_at = clock_timestamp(), fenced_by = 0 WHERE fenced_at IS NULL;
    RETURN true;
END
$$;
