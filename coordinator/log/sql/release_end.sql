-- End HOLD. Its epoch stays ended.
UPDATE txlog.log SET held_since = NULL, held_reason = NULL, released_at = clock_timestamp()
