-- Every trade that settlement knows.
select
    t.trade_id, t.base || '/' || t.quote as symbol, t.amount, t.price, t.buyer_id, t.seller_id,
    t.buy_order_id, t.sell_order_id, (array['SETTLING', 'SETTLED', 'REVERSED'])[t.status] as status
from settlement.trades as t
