-- What comes to be there while a batch waits for its locks is judged without one. Two batches that judge it at once are
-- told apart where they mark it: the second one waits for the first one's row, finds that it no longer is what was
-- judged, and is made again from the start (40001), after the first. A service has a trigger run this when it finds so.
create function pincex.judged_too_early() returns trigger
language plpgsql as $$
begin
    raise exception using
        errcode = 'serialization_failure',
        message = format('a row of %I is not what it was when it was judged', tg_table_name);
end
$$;
