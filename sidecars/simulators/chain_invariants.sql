-- What must always be true of the chain. Each row returned is a violation, named and described; none is sound.

-- Every satoshi came from outside, and is unspent, or was left to the chain as a fee.
select 'MONEY_NOT_CONSERVED' as violation, 'came ' || came || ', unspent ' || unspent || ', fees ' || fees as detail
from (
    select
        (select coalesce(sum(o.satoshis), 0) from outputs as o join transactions as t on t.txid = o.txid where t.is_from_outside) as came,
        (
            select coalesce(sum(o.satoshis), 0) from outputs as o
            where not exists (select 1 from inputs as i where i.spent_txid = o.txid and i.spent_index = o.output_index)
        ) as unspent,
        (select coalesce(sum(t.fee), 0) from transactions as t) as fees
)
where came <> unspent + fees

union all
-- A transaction spends what was there before it, in its own block at the latest.
select 'SPENT_BEFORE_IT_WAS', t.txid
from transactions as t
join inputs as i on i.txid = t.txid
join transactions as b on b.txid = i.spent_txid
where (t.height is not null and (b.height is null or b.height > t.height)) or b.number > t.number

union all
-- What does not come from outside spends something.
select 'SPENDS_NOTHING', t.txid
from transactions as t
where t.is_from_outside = exists (select 1 from inputs as i where i.txid = t.txid)

union all
-- Blocks are numbered from 0, without gaps.
select 'BLOCK_MISSING', 'height ' || b.height
from blocks as b
where b.height > 0 and not exists (select 1 from blocks as p where p.height = b.height - 1)
