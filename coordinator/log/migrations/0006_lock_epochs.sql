-- Epochs of the lock store: the upper part of every fencing token.

-- Every epoch that was ever drawn. A row costs nothing and is never deleted: one is added when a lock store
-- may have lost what it knew.
CREATE TABLE txlog.lock_epochs (
    epoch    bigint PRIMARY KEY,
    drawn_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason   text NOT NULL
);

-- Draws the next epoch: above all before, and not below the clock's seconds. So one that this log has forgotten,
-- because it was restored from an old copy, is not drawn again, as with incarnations (R15).
CREATE FUNCTION txlog.draw_lock_epoch(a_reason text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
    drawn bigint;
BEGIN
    PERFORM log_id FROM txlog.log FOR UPDATE;
    INSERT INTO txlog.lock_epochs (epoch, reason)
    SELECT greatest(coalesce(max(epoch), 0) + 1, floor(extract(epoch FROM clock_timestamp()))::bigint), a_reason
    FROM txlog.lock_epochs
    RETURNING epoch INTO drawn;
    RETURN drawn;
END
$$;
