-- All that lock more rows than one incarnation's own take turns by this one: none meets another half way.
SELECT log_id FROM txlog.log FOR UPDATE
