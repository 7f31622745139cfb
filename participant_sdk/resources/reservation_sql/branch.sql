select
    phase, vote, heuristic, xid, prepared_unix_ms, incarnation, sequence,
    tenant, request_id, request_digest, participants, answer, reason
from pincex.branches
where log = %(log)s and xid = %(xid)s::uuid
