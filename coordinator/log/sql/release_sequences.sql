-- Raise incarnations' sequences; one that the log does not know is put in, fenced by the one that releases.
INSERT INTO txlog.incarnations AS known
    (incarnation, coordinator, address, timeline, lease_until, last_sequence, fenced_at, fenced_by)
SELECT raised.incarnation, '', '', 0, clock_timestamp(), raised.sequence, clock_timestamp(), %(incarnation)s
FROM unnest(%(incarnations)s::bigint[], %(sequences)s::bigint[]) AS raised (incarnation, sequence)
ON CONFLICT (incarnation) DO UPDATE SET last_sequence = greatest(known.last_sequence, excluded.last_sequence)
