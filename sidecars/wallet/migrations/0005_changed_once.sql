-- A withdrawal that comes to be there while a batch waits for locks is judged without one, and looked at again where it
-- is marked.
create trigger withdrawals_changed_once after update of changing on wallet.withdrawals
for each row when (
    new.changing is not null and (
        old.changing is not null
        or not case new.change when 3 then old.status = 2 when 4 then old.status = 6 else old.status in (2, 3) end
    )
)
execute function pincex.judged_too_early();
