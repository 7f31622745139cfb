-- Replace an incarnation's checkpoint. Losing one is harmless, so nobody waits for the disk: here alone.
WITH lazily AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO txlog.checkpoints (incarnation, finished_through, stragglers, written_at)
SELECT %(incarnation)s, %(finished_through)s, %(stragglers)s, clock_timestamp() FROM lazily
ON CONFLICT (incarnation) DO UPDATE
SET finished_through = excluded.finished_through, stragglers = excluded.stragglers, written_at = excluded.written_at
