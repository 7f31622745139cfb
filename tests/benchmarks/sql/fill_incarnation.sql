-- The life that wrote them: over, and with everything finished.
with life as (
    select d.incarnation, max(d.sequence) as last_sequence from txlog.decisions as d group by d.incarnation
), lived as (
    insert into txlog.incarnations
        (incarnation, coordinator, address, timeline, lease_until, last_sequence, fenced_at, fenced_by)
    select l.incarnation, 'filled', '127.0.0.1:1', txlog.current_timeline(), now(), l.last_sequence, now(), 0
    from life as l
)
insert into txlog.checkpoints (incarnation, finished_through, stragglers, written_at)
select l.incarnation, l.last_sequence, '{}', now() from life as l
