-- Draw an incarnation, under the log row's lock. A new timeline ends the incarnations of others (R15).
WITH drawn AS (
    SELECT greatest(coalesce(max(incarnation), 0) + 1, floor(extract(epoch FROM clock_timestamp()))::bigint) AS number,
           min(incarnation) FILTER (WHERE timeline = txlog.current_timeline()) AS epoch,
           txlog.current_timeline() AS timeline
    FROM txlog.incarnations
), ended AS (
    UPDATE txlog.incarnations AS other
    SET fenced_at = clock_timestamp(), fenced_by = drawn.number
    FROM drawn
    WHERE other.fenced_at IS NULL AND other.timeline <> drawn.timeline
), opened AS (
    INSERT INTO txlog.incarnations (incarnation, coordinator, address, timeline, lease_until)
    SELECT number, %(coordinator)s, %(address)s, timeline, clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM drawn
)
SELECT log.log_id, drawn.number, coalesce(drawn.epoch, drawn.number), drawn.timeline FROM txlog.log, drawn
