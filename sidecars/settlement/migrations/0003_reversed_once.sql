-- A trade that comes to be there while a batch waits for locks is judged without one. Two batches that judge it at once
-- are told apart where they mark it: the second one waits for the first one's row, finds that it no longer is what was
-- judged, and is made again from the start (40001), after the first.

create function settlement.judged_too_early() returns trigger
language plpgsql as $$
begin
    raise exception using
        errcode = 'serialization_failure', message = 'a trade is not what it was when it was judged';
end
$$;

create trigger trades_reversed_once after update of reversal on settlement.trades
for each row when (new.reversal is not null and (old.reversal is not null or old.status <> 2))
execute function settlement.judged_too_early();
