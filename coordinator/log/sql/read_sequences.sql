-- The last sequence of incarnations. current_timeline() fails on a standby, whose answer is no answer.
SELECT incarnation, last_sequence
FROM txlog.incarnations
WHERE incarnation = ANY (%(incarnations)s::bigint[]) AND txlog.current_timeline() > 0
