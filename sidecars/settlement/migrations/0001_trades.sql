-- Trades as they are settled, and what each user is owed or owes by them.

-- A trade: the seller delivers the base currency, the buyer pays the quote currency, each pays a fee in the quote
-- currency. Both legs are one row, so there is never one without the other.
create table settlement.trades (
    trade_id text collate "C" primary key,
    -- The branch that settles it, or did.
    branch bigint not null,
    -- The branch that will reverse it, while that is in doubt; then the one that did.
    reversal bigint,
    -- The operation's place in its branch, from 0.
    operation smallint not null,
    -- 1 SETTLING, 2 SETTLED, 3 REVERSED.
    status smallint not null check (status between 1 and 3),
    -- Places after the point of the quote currency.
    quote_scale smallint not null check (quote_scale between 0 and 18),
    amount numeric(38, 18) not null check (amount > 0),
    price numeric(38, 18) not null check (price > 0),
    -- Nothing, where so little was bought that its price rounds to that.
    quote_amount numeric(38, 18) not null check (quote_amount >= 0),
    fee_buyer numeric(38, 18) not null check (fee_buyer >= 0),
    fee_seller numeric(38, 18) not null check (fee_seller >= 0),
    buyer_id text collate "C" not null,
    seller_id text collate "C" not null,
    base text collate "C" not null,
    quote text collate "C" not null,
    buy_order_id text collate "C",
    sell_order_id text collate "C",
    settled_at timestamptz,
    reversed_at timestamptz,
    reversal_reason text,
    constraint two_parties check (buyer_id <> seller_id),
    constraint two_currencies check (base <> quote),
    -- Rounded down: what fills of an order cost together is never more than the order.
    constraint legs_agree check (quote_amount = trunc(amount * price, quote_scale)),
    constraint seller_is_paid check (fee_seller <= quote_amount),
    constraint settled_when_final check ((settled_at is not null) = (status > 1)),
    constraint reversed_when_final check ((reversed_at is not null) = (status = 3)),
    constraint reversal_with_reason check ((reversal is null) = (reversal_reason is null)),
    constraint reversal_of_settled check (
        case status when 1 then reversal is null when 3 then reversal is not null else true end
    )
) with (fillfactor = 70);

create index trades_branch on settlement.trades (branch);
create index trades_reversal on settlement.trades (reversal) where reversal is not null;

-- What was moved by what is final: for each trade its delivery, its payment and its fees, and the same the other way
-- round if it was reversed.
create view settlement.legs as
select t.trade_id, t.branch, t.reversal, l.leg, false as is_reversal, l.giver, l.taker, l.currency, l.amount
from settlement.trades as t
cross join lateral (
    values
    ('delivery', t.seller_id, t.buyer_id, t.base, t.amount),
    ('payment', t.buyer_id, t.seller_id, t.quote, t.quote_amount),
    ('fee_buyer', t.buyer_id, 'house:fees', t.quote, t.fee_buyer),
    ('fee_seller', t.seller_id, 'house:fees', t.quote, t.fee_seller)
) as l (leg, giver, taker, currency, amount)
where t.status > 1 and (l.amount > 0 or l.leg = 'payment')
union all
select t.trade_id, t.branch, t.reversal, l.leg, true, l.giver, l.taker, l.currency, l.amount
from settlement.trades as t
cross join lateral (
    values
    ('delivery', t.buyer_id, t.seller_id, t.base, t.amount),
    ('payment', t.seller_id, t.buyer_id, t.quote, t.quote_amount),
    ('fee_buyer', 'house:fees', t.buyer_id, t.quote, t.fee_buyer),
    ('fee_seller', 'house:fees', t.seller_id, t.quote, t.fee_seller)
) as l (leg, giver, taker, currency, amount)
where t.status = 3 and (l.amount > 0 or l.leg = 'payment');

-- Each leg from both sides: what the giver gives is below zero.
create view settlement.lines as
select g.trade_id, g.branch, g.reversal, g.is_reversal, s.user_id, g.currency, s.amount
from settlement.legs as g
cross join lateral (values (g.giver, -g.amount), (g.taker, g.amount)) as s (user_id, amount);

-- What a user is owed, or owes below zero, over all that is final. Ten digits wider than an amount: a sum that did not
-- fit would be found out by a Commit, which must not fail.
create table settlement.positions (
    user_id text collate "C" not null,
    currency text collate "C" not null,
    net numeric(48, 18) not null,
    primary key (user_id, currency)
) with (fillfactor = 70);
