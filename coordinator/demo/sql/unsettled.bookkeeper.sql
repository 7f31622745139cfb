select 'accounts with locked or reserved money' as what, count(*) as many
from bookkeeper.accounts as a
where a.locked <> 0 or a.reserved <> 0 or a.releasing <> 0 or a.opening is not null
