-- What must always be true of the bank's books. Each row returned is a violation, named and described; none is sound.

-- A payment went out once, with its amount, or not at all if it was rejected.
select 'PAID_NOT_ONCE' as violation,
    printf('key %s, %s: %s postings, %s', p.idempotency_key, p.status, count(o.number), coalesce(sum(o.minor), 0)) as detail
from payments as p
left join postings as o on o.idempotency_key = p.idempotency_key
group by p.number
having count(o.number) <> (p.status = 'executed')
    or coalesce(sum(o.minor), 0) <> -p.minor * (p.status = 'executed')
    or max(o.currency <> p.currency)

union all
-- A transfer came in once, with its amount.
select 'RECEIVED_NOT_ONCE', printf('reference %s: %s postings, %s', t.reference, count(o.number), coalesce(sum(o.minor), 0))
from transfers as t
left join postings as o on o.reference = t.reference
group by t.number
having count(o.number) <> 1 or sum(o.minor) <> t.minor or max(o.currency <> t.currency)

union all
-- Money moves for a payment or a transfer, and for nothing else.
select 'POSTING_WITHOUT_CAUSE', printf('posting %s', o.number)
from postings as o
where (o.idempotency_key is not null and o.idempotency_key not in (select p.idempotency_key from payments as p))
or (o.reference is not null and o.reference not in (select t.reference from transfers as t));
