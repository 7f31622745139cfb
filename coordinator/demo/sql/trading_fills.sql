-- Every fill, as settlement must have it.
select
    f.trade_id, f.symbol, f.amount, f.price, f.buyer_id, f.seller_id, f.buy_order_id, f.sell_order_id,
    'FILLED' as status
from trading.fills as f
