-- Delivered (2), to be sent again after the pause (1), or given up (3).
update fiat.notifications as n
set
    state = %(state)s,
    detail = %(detail)s,
    due_at = now() + make_interval(secs => %(pause_s)s),
    delivered_at = case %(state)s when 2 then now() end
where n.notification_id = %(notification_id)s and n.state = 1
