-- A bank as small as a bank can be: what the limits work on.
create table accounts (
    id bigint primary key,
    balance bigint not null,
    held bigint not null default 0
) with (fillfactor = 70);

create table holds (
    id uuid primary key,
    account bigint not null,
    amount bigint not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- One batch in one call, and so one flush: the last batch becomes final, the next one is held where the
-- money is there. Returns those for which it is not. A running sum over each account keeps two of one batch
-- from holding the same money.
create function settle_and_hold(settled uuid[], wanted uuid[], payers bigint[], amounts bigint[]) returns uuid[]
language plpgsql as $$
declare
    refused uuid[] := '{}';
begin
    if cardinality(settled) > 0 then
        with released as (
            delete from holds as h where h.id = any (settled) returning h.account, h.amount
        ), sums as (
            select r.account, sum(r.amount) as amount from released as r group by r.account
        )
        update accounts as a
        set balance = a.balance - s.amount, held = a.held - s.amount
        from sums as s
        where a.id = s.account;
    end if;
    if cardinality(wanted) > 0 then
        with request as materialized (
            select r.id, r.account, r.amount, sum(r.amount) over (partition by r.account order by r.place) as running
            from unnest(wanted, payers, amounts) with ordinality as r (id, account, amount, place)
        ), locked as materialized (
            select a.id, a.balance - a.held as free
            from accounts as a
            where a.id in (select r.account from request as r)
            order by a.id
            for no key update
        ), judged as materialized (
            select r.id, r.account, r.amount, r.running <= l.free as fits
            from request as r join locked as l on l.id = r.account
        ), kept as (
            insert into holds (id, account, amount)
            select j.id, j.account, j.amount from judged as j where j.fits
        ), taken as (
            update accounts as a
            set held = a.held + s.amount
            from (
                select j.account, sum(j.amount) as amount from judged as j where j.fits group by j.account
            ) as s
            where a.id = s.account
        )
        select coalesce(array_agg(j.id), '{}') into refused from judged as j where not j.fits;
    end if;
    return refused;
end
$$;
