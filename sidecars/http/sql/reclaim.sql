-- Whoever had taken these has gone; or it lives, and then the service is called twice.
update http.held set due = now() where state in (3, 4)
