-- What any participant on reservations holds: no money that is compared, its committed branches, those in doubt.
select
    0::numeric as money,
    count(*) filter (where b.phase = 3) as committed,
    count(*) filter (where b.phase in (2, 5)) as in_doubt
from pincex.branches as b;
