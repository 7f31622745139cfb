-- Draw an incarnation, under the log row's lock. A new timeline ends the incarnations of others, and an
-- epoch begins with it, or after HOLD (R15). Those that ended by themselves or by HOLD are adopted.
WITH server AS MATERIALIZED (
    SELECT txlog.current_timeline() AS timeline
), drawn AS (
    SELECT greatest(coalesce(max(incarnation), 0) + 1, log.epoch_after + 1, floor(extract(epoch FROM clock_timestamp()))::bigint) AS number,
           server.timeline,
           -- A dump may come to a server whose timeline the log has had before: what is above ended that one.
           greatest(log.epoch_after, max(incarnation) FILTER (WHERE known.timeline NOT IN (0, server.timeline))) AS ended
    FROM txlog.log CROSS JOIN server LEFT JOIN txlog.incarnations AS known ON true
    GROUP BY log.epoch_after, server.timeline
), adopted AS (
    UPDATE txlog.incarnations AS other
    SET fenced_at = coalesce(other.fenced_at, clock_timestamp()), fenced_by = drawn.number
    FROM drawn
    WHERE other.fenced_by = 0 OR (other.fenced_at IS NULL AND other.timeline <> drawn.timeline)
), opened AS (
    INSERT INTO txlog.incarnations (incarnation, coordinator, address, timeline, lease_until)
    SELECT number, %(coordinator)s, %(address)s, timeline, clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM drawn
)
SELECT log.log_id, drawn.number,
       coalesce((SELECT min(first.incarnation) FROM txlog.incarnations AS first
                 WHERE first.timeline = drawn.timeline AND first.incarnation > drawn.ended), drawn.number),
       drawn.timeline
FROM txlog.log, drawn
