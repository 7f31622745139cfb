-- HOLD where no coordinator runs, a horizon that waits after its end, and a way out of two bindings of one request.

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
    SET held_since = clock_timestamp(), held_reason = coalesce(nullif(btrim(a_reason), ''), 'no reason was given'),
        epoch_after = (SELECT coalesce(max(incarnation), 0) FROM txlog.incarnations)
    WHERE held_since IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE txlog.incarnations SET fenced_at = clock_timestamp(), fenced_by = 0 WHERE fenced_at IS NULL;
    RETURN true;
END
$$;

-- Takes its request from a decision, which stays what it is, and returns it: so the COMMIT that participants have
-- applied for that request, and that the log lost, can have it back (R15). An operator's hand, only in HOLD.
CREATE FUNCTION txlog.unbind(a_xid uuid, a_reason text) RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    bound text;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM log_id FROM txlog.log WHERE held_since IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log is not in HOLD: nothing may be unbound';
    END IF;
    IF coalesce(btrim(a_reason), '') = '' THEN
        RAISE EXCEPTION 'a reason is required';
    END IF;
    SELECT request_id INTO bound FROM txlog.decisions WHERE xid = a_xid AND request_id IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no request is bound to transaction %', a_xid;
    END IF;
    UPDATE txlog.decisions SET tenant = NULL, request_id = NULL, request_digest = NULL WHERE xid = a_xid;
    INSERT INTO txlog.operator_actions (action, xid, participant, detail, reason)
    VALUES ('UNBIND', a_xid, '', bound, a_reason);
    RETURN bound;
END
$$;
