-- A trade that comes to be there while a batch waits for locks is judged without one, and looked at again where it is
-- marked.
create trigger trades_reversed_once after update of reversal on settlement.trades
for each row when (new.reversal is not null and (old.reversal is not null or old.status <> 2))
execute function pincex.judged_too_early();
