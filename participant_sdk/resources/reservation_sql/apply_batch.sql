select part, at, phase, heuristic, vote, answer
from pincex.apply_current(
    %(commit_epoch)s::bigint, %(log)s::smallint, current_setting('pincex.worker')::smallint,
    %(commit_xids)s, %(commit_incarnations)s, %(commit_sequences)s,
    %(rollback_xids)s,
    %(prepare_xids)s, %(votes)s, %(answers)s, %(tenants)s, %(request_ids)s, %(digests)s, %(participants)s,
    %(now_unix_ms)s::bigint, %(operations)s::jsonb
)
