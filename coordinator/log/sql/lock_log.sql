SELECT log_id FROM txlog.log FOR UPDATE
