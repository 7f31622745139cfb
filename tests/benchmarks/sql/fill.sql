-- Decisions first to last of as many as are finished, as a coordinator would have written them over the last day.
with life as (
    select floor(extract(epoch from now()))::bigint - 86400 as incarnation
)
insert into txlog.decisions
    (xid, incarnation, sequence, decided_at, decision, prepared, tenant, request_id, request_digest)
select
    (
        lpad(to_hex(l.incarnation * 1000 + m.after_ms), 12, '0') || '8'
        || lpad(to_hex(l.incarnation), 8, '0') || lpad(to_hex(n), 11, '0')
    )::uuid,
    l.incarnation, n, to_timestamp(l.incarnation + m.after_ms / 1000.0), 1, '{payer,payee}', 'default',
    md5(n::text)::uuid::text, sha256(n::text::bytea)
from life as l
cross join generate_series(%(first)s::bigint, %(last)s::bigint) as n
cross join lateral (select n * 80000000 / %(finished)s::bigint as after_ms) as m
