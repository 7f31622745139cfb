-- A piece of the bank's list, and how far it has been read, at once. What was told before is told again by a bank that
-- repeats itself; what contradicts it is kept apart, and the first stays.
with told as (
    select t.*, t.ordinality as place
    from rows from (
        jsonb_to_recordset(%(transfers)s::jsonb) as (
            reference text, transfer_id text, currency text, amount numeric, iban text, name text,
            received_at timestamptz
        )
    ) with ordinality as t
), known as (
    select distinct on (k.reference) k.reference, k.transfer_id, k.currency, k.amount, k.iban
    from (
        select b.reference, b.transfer_id, b.currency, b.amount, b.iban, 0 as place
        from fiat.bank_transfers as b
        where b.reference in (select t.reference from told as t)
        union all
        select t.reference, t.transfer_id, t.currency, t.amount, t.iban, t.place from told as t
    ) as k
    order by k.reference, k.place
), kept as (
    insert into fiat.bank_transfers (reference, transfer_id, currency, amount, iban, name, received_at)
    select distinct on (t.reference)
        t.reference, t.transfer_id, t.currency, t.amount, t.iban, t.name, t.received_at
    from told as t
    order by t.reference, t.place
    on conflict (reference) do nothing
), doubted as (
    insert into fiat.bank_doubts (told, why)
    select distinct
        json_build_object(
            'reference', t.reference, 'transfer_id', t.transfer_id, 'currency', t.currency,
            'amount', t.amount::text, 'iban', t.iban
        )::text,
        'contradicts what the bank told before of this reference'
    from told as t
    join known as k on k.reference = t.reference
    where (t.transfer_id, t.currency, t.amount, t.iban) <> (k.transfer_id, k.currency, k.amount, k.iban)
    union all
    select d.told, d.why from unnest(%(unusable)s::text[], %(reasons)s::text[]) as d (told, why)
    on conflict do nothing
    returning told, why
), moved as (
    update fiat.bank_cursor as c set cursor = %(following)s
)
select d.told, d.why from doubted as d
