-- What an XA bank holds: its users' money, its committed branches, those in doubt or prepared.
select
    (select coalesce(sum(a.balance), 0) from accounts as a) as money,
    (select count(*) from pincex_xa.branches as b where b.phase = 3) as committed,
    (select count(*) from pincex_xa.branches as b where b.phase in (1, 5))
    + (select count(*) from pg_prepared_xacts as p where p.database = current_database()) as in_doubt;
