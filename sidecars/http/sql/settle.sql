-- The service has done it: nothing is held any more. What comes after this is told.
delete from http.held as h
using unnest(%(log_ids)s::text[], %(xids)s::uuid[], %(states)s::smallint[]) as s (log_id, xid, state), pincex.logs as l
where l.log_id = s.log_id and h.log = l.log and h.xid = s.xid and h.state = s.state
