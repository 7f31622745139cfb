-- HOLD, the horizon, and a row for each live incarnation, or one without. current_timeline() fails on a standby.
SELECT coalesce((extract(epoch FROM log.held_since) * 1000)::bigint, 0), coalesce(log.held_reason, ''),
       log.pruned_below_unix_ms, live.incarnation, live.coordinator, live.address,
       extract(epoch FROM live.lease_until - clock_timestamp())::float8
FROM txlog.log
CROSS JOIN txlog.current_timeline()
LEFT JOIN txlog.incarnations AS live ON live.fenced_at IS NULL
ORDER BY live.incarnation
