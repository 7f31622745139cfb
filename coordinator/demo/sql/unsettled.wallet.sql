select 'deposits or withdrawals under way' as what, (
    select count(*) from wallet.deposits as d where d.posted_at is null
) + (
    select count(*) from wallet.withdrawals as w where w.status not in (7, 8) or w.changing is not null
) as many
union all
select 'hot wallets with reserved coins', count(*) from wallet.hot_wallets as h where h.reserved <> 0
