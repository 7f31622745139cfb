-- Put the log in HOLD; one that is held keeps its first reason (R15).
UPDATE txlog.log SET held_since = clock_timestamp(), held_reason = %(reason)s WHERE held_since IS NULL
