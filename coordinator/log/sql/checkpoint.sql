-- Replace an incarnation's checkpoint; what participants acknowledged only rises.
-- Losing one is harmless, so nobody waits for the disk: here alone.
WITH lazily AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), acknowledged AS (
    INSERT INTO txlog.applied AS known (incarnation, participant, sequence)
    SELECT %(incarnation)s, participant, sequence
    FROM unnest(%(participants)s::text[], %(sequences)s::bigint[]) AS told (participant, sequence)
    ORDER BY participant
    ON CONFLICT (participant, incarnation) DO UPDATE SET sequence = excluded.sequence
    WHERE known.sequence < excluded.sequence
)
INSERT INTO txlog.checkpoints (incarnation, finished_through, stragglers, written_at)
SELECT %(incarnation)s, %(finished_through)s, %(stragglers)s, clock_timestamp() FROM lazily
ON CONFLICT (incarnation) DO UPDATE
SET finished_through = excluded.finished_through, stragglers = excluded.stragglers, written_at = excluded.written_at
