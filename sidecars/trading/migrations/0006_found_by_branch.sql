-- A Commit finds the orders that it cancels by their branch. The index of open orders is smaller, so the planner took
-- that one, and read the whole of every book for each batch. The sum keeps it from that.

-- As before, but for the sum. Entries get their numbers in the order in which their branches were prepared; within a
-- branch cancellations come first, so that what replaces an order never meets it.
create or replace function trading.commit_branches(branches bigint[]) returns void
language plpgsql as $$
declare
    symbols text[];
begin
    with entering as (
        select
            e.*, row_number() over (partition by e.symbol order by e.by_branch, e.is_order, e.branch, e.operation) as place
        from (
            select o.branch, o.operation, o.symbol, o.branch as by_branch, true as is_order
            from trading.orders as o
            where o.branch = any (branches)
            union all
            select o.branch, o.operation, o.symbol, o.cancelling, false
            from trading.orders as o
            where o.cancelling = any (branches) and o.status + 0 = 2
        ) as e
    ), numbered as (
        update trading.books as k
        set last_sequence = k.last_sequence + e.entries
        from (select n.symbol, count(*) as entries from entering as n group by n.symbol) as e
        where k.symbol = e.symbol
        returning k.symbol, k.last_sequence - e.entries as before
    ), entered as (
        update trading.orders as o
        set
            status = 2,
            sequence = case when e.is_order then n.before + e.place else o.sequence end,
            cancel_sequence = case when not e.is_order then n.before + e.place end,
            cancelling = null
        from entering as e
        join numbered as n on n.symbol = e.symbol
        where o.branch = e.branch and o.operation = e.operation
    )
    select array_agg(n.symbol) into symbols from numbered as n;
    -- What has been filled or closed since its cancellation was prepared is at its end already.
    update trading.orders as o set cancelling = null where o.cancelling = any (branches);
    perform pg_notify('trading_book', s.symbol) from unnest(symbols) as s (symbol);
end
$$;
