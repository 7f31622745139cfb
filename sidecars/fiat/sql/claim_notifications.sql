-- Notifications that are due, at most so many, for one sender alone until the lease ends.
with due as (
    select n.notification_id
    from fiat.notifications as n
    where n.state = 1 and n.due_at <= now()
    order by n.due_at
    limit %(most)s
    for update skip locked
)
update fiat.notifications as n
set attempts = n.attempts + 1, due_at = now() + make_interval(secs => %(lease_s)s)
from due
where n.notification_id = due.notification_id
returning n.notification_id, n.body, n.attempts
