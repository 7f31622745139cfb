-- Where fees go: an account of the exchange's own in each currency that it deals in. A currency that comes later
-- brings a migration like this one.
insert into bookkeeper.accounts (user_id, currency)
select 'house:fees', c.currency
from unnest(array[
    'AUD', 'CAD', 'CHF', 'EUR', 'GBP', 'JPY', 'USD', 'ADA', 'BCH', 'BTC', 'DAI', 'DOGE', 'DOT', 'ETH', 'LTC', 'SOL',
    'USDC', 'USDT', 'XRP'
]) as c (currency)
on conflict do nothing;
