-- HOLD of a log that has forgotten an epoch that participants hold: the next one must be higher than theirs.

-- Puts the log in HOLD, raises what the next epoch is above, and ends every live incarnation (R15): whether it did.
-- Nothing is changed where the incarnation that asks does not live here: then it is the one that is over. In HOLD
-- already, the reason stays, and whoever was drawn since ends too: participants would refuse them for ever.
CREATE FUNCTION txlog.hold_above(own bigint, epoch bigint, a_reason text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM log_id FROM txlog.log FOR UPDATE;
    PERFORM incarnation FROM txlog.incarnations
    WHERE incarnation = own AND fenced_at IS NULL AND timeline = txlog.current_timeline();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM txlog.hold(a_reason);
    UPDATE txlog.log SET epoch_after = greatest(epoch_after, epoch);
    UPDATE txlog.incarnations SET fenced_at = clock_timestamp(), fenced_by = 0 WHERE fenced_at IS NULL;
    RETURN true;
END
$$;
