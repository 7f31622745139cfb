-- Fencing tokens of locks: whoever held a key before its last holder that was seen here is refused.

-- The highest tokens seen of each lock's key, by how it was held, and when that was.
create table pincex.fencing (
    log          smallint not null,
    key          text not null,
    exclusive    bigint not null default 0,
    shared       bigint not null default 0,
    seen_unix_ms bigint not null,
    primary key (log, key)
);

create index fencing_seen on pincex.fencing (log, seen_unix_ms);

-- Checks the tokens that a batch's branches show, and keeps the highest: the keys' rows stay locked until the
-- branches are prepared and durable, so that none slips in behind a newer holder. Returns the places of branches to
-- refuse, each with a key that was held since, and by which token. Sharers do not outdate each other.
create function pincex.fence(
    log_number smallint, places integer[], lock_keys text[], tokens bigint[], are_shared boolean[], now_unix_ms bigint
) returns table (at integer, key text, token bigint)
language plpgsql as $$
#variable_conflict use_column
begin
    insert into pincex.fencing as f (log, key, seen_unix_ms)
    select distinct log_number, k.key, now_unix_ms from unnest(lock_keys) as k (key) order by 2
    on conflict do nothing;
    perform from pincex.fencing as f where f.log = log_number and f.key = any (lock_keys) order by f.key for update;

    return query
    select distinct on (t.at) t.at, f.key, greatest(f.exclusive, case when not t.is_shared then f.shared end)
    from unnest(places, lock_keys, tokens, are_shared) as t (at, key, token, is_shared)
    join pincex.fencing as f on f.log = log_number and f.key = t.key
    where t.token < f.exclusive or (not t.is_shared and t.token < f.shared)
    order by t.at, f.key;

    update pincex.fencing as f
    set exclusive = greatest(f.exclusive, t.exclusive), shared = greatest(f.shared, t.shared),
        seen_unix_ms = greatest(f.seen_unix_ms, now_unix_ms)
    from (
        select k.key, max(k.token) filter (where not k.is_shared) as exclusive, max(k.token) filter (where k.is_shared) as shared
        from unnest(lock_keys, tokens, are_shared) as k (key, token, is_shared) group by k.key
    ) as t
    where f.log = log_number and f.key = t.key;
end
$$;

-- Drops keys that nobody has shown for so long that no Prepare with an older token can come any more.
create function pincex.prune_fencing(log_number smallint, below_unix_ms bigint, at_most integer) returns integer
language sql as $$
    with dropped as (
        delete from pincex.fencing as f
        where (f.log, f.key) in (
            select o.log, o.key from pincex.fencing as o
            where o.log = log_number and o.seen_unix_ms < below_unix_ms
            order by o.seen_unix_ms limit at_most for update skip locked
        )
        returning 1
    )
    select count(*)::integer from dropped
$$;
