-- A withdrawal that comes to be there while a batch waits for locks is judged without one. Two batches that judge it at
-- once are told apart where they mark it: the second one waits for the first one's row, finds that it no longer is what
-- was judged, and is made again from the start (40001), after the first.

create function wallet.judged_too_early() returns trigger
language plpgsql as $$
begin
    raise exception using
        errcode = 'serialization_failure', message = 'a withdrawal is not what it was when it was judged';
end
$$;

create trigger withdrawals_changed_once after update of changing on wallet.withdrawals
for each row when (
    new.changing is not null and (
        old.changing is not null
        or not case new.change when 3 then old.status = 2 when 4 then old.status = 6 else old.status in (2, 3) end
    )
)
execute function wallet.judged_too_early();
