-- Why an append did nothing: the server's timeline, HOLD, and the incarnation's row if there is one.
SELECT txlog.current_timeline(), log.held_since IS NOT NULL, own.last_sequence, own.fenced_at IS NOT NULL
FROM txlog.log LEFT JOIN txlog.incarnations AS own ON own.incarnation = %(incarnation)s
