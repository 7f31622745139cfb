-- Not done yet: again after a pause that doubles up to half a minute, give or take a quarter.
update http.held as h
set
    attempts = h.attempts + 1,
    fault = p.fault,
    due = now() + interval '1 second' * least(30, 0.25 * 2 ^ least(h.attempts, 10)) * (0.75 + random() / 2)
from unnest(%(log_ids)s::text[], %(xids)s::uuid[], %(faults)s::text[]) as p (log_id, xid, fault), pincex.logs as l
where l.log_id = p.log_id and h.log = l.log and h.xid = p.xid and h.state in (3, 4)
