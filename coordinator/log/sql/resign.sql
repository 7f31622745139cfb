-- End an incarnation by its own will; whoever opens or fences next adopts it.
UPDATE txlog.incarnations
SET fenced_at = clock_timestamp(), fenced_by = 0
WHERE incarnation = %(incarnation)s AND fenced_at IS NULL
