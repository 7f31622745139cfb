SELECT xid, participant, heuristic, message FROM txlog.heuristics WHERE xid = %(xid)s ORDER BY participant
