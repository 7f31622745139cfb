select 'deposits or withdrawals under way' as what, (
    select count(*) from fiat.deposits as d where d.recorded_at is null
) + (
    select count(*) from fiat.withdrawals as w where w.status in (1, 2) or w.ending is not null
) as many
union all
select 'payments that the bank has not answered', count(*) from fiat.payments as p where p.state in (1, 2)
union all
select 'deposits that the webhook has not heard of', count(*) from fiat.notifications as n where n.state <> 2
