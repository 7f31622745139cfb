-- Whether HOLD may end by this incarnation's hand: is it held, does it live, and which live incarnation is said
-- to have written what it never wrote.
SELECT log.held_since IS NOT NULL, log.held_reason,
       EXISTS (
           SELECT FROM txlog.incarnations
           WHERE incarnation = %(incarnation)s AND fenced_at IS NULL AND timeline = txlog.current_timeline()
       ),
       (
           SELECT min(live.incarnation)
           FROM unnest(%(incarnations)s::bigint[], %(sequences)s::bigint[]) AS raised (incarnation, sequence)
           JOIN txlog.incarnations AS live USING (incarnation)
           WHERE live.fenced_at IS NULL AND raised.sequence > live.last_sequence
       )
FROM txlog.log
