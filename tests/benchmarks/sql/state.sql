-- What a bookkeeper holds: its users' money, its committed branches, those in doubt.
select
    (select coalesce(sum(a.balance), 0) from bookkeeper.accounts as a) as money,
    (select count(*) from pincex.branches as b where b.phase = 3) as committed,
    (select count(*) from pincex.branches as b where b.phase in (2, 5)) as in_doubt;
