-- Keep what an operator did, or is about to do.
INSERT INTO txlog.operator_actions (action, xid, participant, detail, reason)
VALUES (%(action)s, %(xid)s, %(participant)s, %(detail)s, %(reason)s)
