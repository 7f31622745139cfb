-- Raise the horizon, and delete what is below it, in one snapshot for whoever reads (R14), under the log row's
-- lock. Not in HOLD, nor for one retention after its end: what waited for a decision meanwhile is given the time to
-- ask for it that it would have had.
--
-- The horizon is below all that is unfinished, below heuristic ends that are not forgotten, below what an unfinished
-- workflow may ask for, by whichever coordinator's clock, and below what a coordinator may still decide whose lease ran
-- out while it could not reach the log.
--
-- What the time is, two clocks must agree on, this server's and the caller's: of the two the one that is behind. One
-- that was set forward would have undecided transactions forgotten, for good, as the horizon never falls; one that was
-- set back only keeps for longer.
WITH agreed AS (
    SELECT least(clock_timestamp(), to_timestamp(%(now_unix_ms)s / 1000.0)) AS time
), unfinished AS (
    SELECT decisions.xid
    FROM txlog.incarnations
    LEFT JOIN txlog.checkpoints USING (incarnation)
    JOIN txlog.decisions ON decisions.incarnation = incarnations.incarnation
                        AND decisions.sequence > coalesce(checkpoints.finished_through, 0)
    UNION ALL
    SELECT decisions.xid
    FROM txlog.checkpoints CROSS JOIN unnest(stragglers) AS straggler (xid) JOIN txlog.decisions USING (xid)
), bound AS MATERIALIZED (
    SELECT least(
        (extract(epoch FROM least(
            agreed.time, (SELECT min(lease_until) FROM txlog.incarnations WHERE fenced_at IS NULL)
        ) - make_interval(secs => %(retention_s)s)) * 1000)::bigint,
        (SELECT min(txlog.xid_unix_ms(xid)) FROM unfinished),
        (SELECT min(txlog.xid_unix_ms(xid)) FROM txlog.heuristics WHERE forgotten_at IS NULL),
        (SELECT min(txlog.xid_unix_ms(workflow_id)) - %(clocks_apart_ms)s FROM txlog.workflows WHERE phase IN (1, 2))
    ) AS unix_ms
    FROM txlog.log CROSS JOIN agreed
    WHERE held_since IS NULL
      AND (released_at IS NULL OR released_at <= agreed.time - make_interval(secs => %(retention_s)s))
), raised AS (
    UPDATE txlog.log
    SET pruned_below_unix_ms = bound.unix_ms
    FROM bound
    WHERE pruned_below_unix_ms < bound.unix_ms
), deleted AS (
    DELETE FROM txlog.decisions
    USING (
        SELECT xid
        FROM txlog.decisions
        WHERE xid < (SELECT txlog.lowest_xid(unix_ms) FROM bound)
        ORDER BY xid
        LIMIT %(limit)s
    ) AS old
    WHERE decisions.xid = old.xid
    RETURNING 1
)
SELECT count(*) FROM deleted
