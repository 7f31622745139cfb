-- An order that comes to be there while a batch waits for locks is judged without one, and looked at again where it is
-- marked.
create trigger orders_cancelled_once after update of cancelling on trading.orders
for each row when (
    new.cancelling is not null
    and (old.cancelling is not null or old.cancel_sequence is not null or old.status <> 2)
)
execute function pincex.judged_too_early();
