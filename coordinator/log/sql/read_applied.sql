-- The highest sequence of each incarnation that a participant acknowledged.
SELECT incarnation, sequence
FROM txlog.applied
WHERE participant = %(participant)s AND txlog.current_timeline() > 0
ORDER BY incarnation
