-- The Commit of a branch that was forced, and forgotten, finds it COMMITTED without a decision. It is answered
-- ALREADY_DONE, which the coordinator counts as applied: so the decision is stored, and the watermark rises (R15).
--
-- Stores the decisions of branches that are prepared, before they are committed, and of those; then looks.
create or replace function pincex_xa.decide(
    a_participant text, a_log_id text, a_xids uuid[], a_incarnations bigint[], a_sequences bigint[]
) returns setof pincex_xa.found
language plpgsql as $$
declare
    held constant text[] := pincex_xa.prepared(a_participant, a_log_id, a_xids);
begin
    insert into pincex_xa.decisions (participant, log_id, xid, incarnation, sequence)
    select a_participant, a_log_id, u.xid, u.incarnation, u.sequence
    from unnest(a_xids, a_incarnations, a_sequences) u(xid, incarnation, sequence)
    where pincex_xa.gid(a_participant, a_log_id, u.xid) = any (held) or exists (
        select from pincex_xa.branches b
        where b.participant = a_participant and b.log_id = a_log_id and b.xid = u.xid and b.phase = 3
    )
    on conflict do nothing;
    return query select * from pincex_xa.look(a_participant, a_log_id, a_xids);
end
$$;
