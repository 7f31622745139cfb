SELECT txlog.draw_lock_epoch(%(reason)s)
