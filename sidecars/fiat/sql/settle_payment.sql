-- What the bank says of a payment. Once is enough: a late answer changes nothing.
update fiat.payments as p
set
    state = %(state)s,
    payment_id = %(payment_id)s,
    paid = %(paid)s::numeric,
    detail = %(detail)s,
    settled_at = now()
where p.withdrawal_id = %(withdrawal_id)s and p.state = 2
