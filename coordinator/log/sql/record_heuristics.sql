-- Keep heuristic ends, each once.
INSERT INTO txlog.heuristics (xid, participant, heuristic, message)
SELECT * FROM unnest(%(xids)s, %(participants)s::text[], %(heuristics)s::smallint[], %(messages)s::text[])
ON CONFLICT DO NOTHING
