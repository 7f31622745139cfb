SELECT coalesce(max(epoch), 0) FROM txlog.lock_epochs
