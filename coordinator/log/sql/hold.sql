-- Put the log in HOLD (R15). A log that is held keeps its first reason, and nothing is changed.
SELECT txlog.hold(%(reason)s)
