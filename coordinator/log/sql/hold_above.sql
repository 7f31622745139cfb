-- Put the log in HOLD, where this incarnation lives, and have the next epoch be above one that participants hold (R15).
SELECT txlog.hold_above(%(incarnation)s, %(epoch)s, %(reason)s)
