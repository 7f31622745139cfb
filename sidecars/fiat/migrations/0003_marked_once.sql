-- What comes to be there while a batch waits for locks is judged without one: a withdrawal that two transactions
-- reserved, a user who was cleared meanwhile. So it is looked at again where it is written.
create trigger withdrawals_marked_once after update of ending on fiat.withdrawals
for each row when (new.ending is not null and (old.ending is not null or old.status > 2))
execute function pincex.judged_too_early();

-- As before; and what a day's limit has no room for is judged again.
create or replace function fiat.take(numbers bigint[], operations jsonb, accepted integer[]) returns void
language plpgsql as $$
declare
    is_over boolean;
begin
    with wanted as (
        select
            w.u, w.c, coalesce(sum(w.a) filter (where w.k = 4), 0) as deposited,
            coalesce(sum(w.a) filter (where w.k = 5), 0) as withdrawn
        from jsonb_populate_recordset(null::fiat.operation, operations) as w
        where w.b = any (accepted) and w.k in (4, 5)
        group by w.u, w.c
    ), counted as (
        insert into fiat.usage as g (user_id, currency, day, deposited, withdrawn)
        select w.u, w.c, (now() at time zone 'utc')::date, w.deposited, w.withdrawn from wanted as w
        on conflict (user_id, currency, day) do update
        set deposited = g.deposited + excluded.deposited, withdrawn = g.withdrawn + excluded.withdrawn
        returning g.user_id, g.currency, g.deposited, g.withdrawn
    )
    select
        coalesce(bool_or(
            (w.deposited > 0 and c.deposited > l.deposit_day) or (w.withdrawn > 0 and c.withdrawn > l.withdrawal_day)
        ), false)
    into is_over
    from counted as c
    join wanted as w on w.u = c.user_id and w.c = c.currency
    join fiat.limits as l on l.currency = c.currency;
    if is_over then
        raise exception using
            errcode = 'serialization_failure', message = 'a day''s limit is not what it was when it was judged';
    end if;

    update fiat.withdrawals as x
    set ending = numbers[w.b], ending_as = case w.k when 6 then 3 else 4 end
    from jsonb_populate_recordset(null::fiat.operation, operations) as w
    where w.b = any (accepted) and w.k in (6, 7) and x.withdrawal_id = w.i;

    with changes as (
        insert into fiat.compliance_changes (branch, operation, user_id, state, note)
        select numbers[w.b], w.o, w.u, w.s, w.t
        from jsonb_populate_recordset(null::fiat.operation, operations) as w
        where w.b = any (accepted) and w.k = 1
        returning branch, user_id
    )
    update fiat.users as u set changing = c.branch
    from changes as c
    where u.user_id = c.user_id;
end
$$;
