-- What the attendant does to a withdrawal that is queued: each a transaction of its own.

-- Store a signed payment before it is sent, if the withdrawal still waits for one, and nothing else will pay or cancel
-- it. False where it does not; a unique violation where another payment spends one of the inputs. Either way the
-- payment was never sent, and must not be.
create function wallet.store_payment(
    named text, paid_txid text, paid_raw text, paid_fee numeric, input_txids text[], input_indexes integer[]
) returns boolean
language plpgsql as $$
declare
    waiting wallet.withdrawals;
begin
    select w.* into waiting
    from wallet.withdrawals as w
    where w.withdrawal_id = named and w.status = 3 and w.changing is null and w.fee >= paid_fee
    for no key update;
    if not found then
        return false;
    end if;
    insert into wallet.payments (withdrawal_id, currency, txid, raw, fee)
    values (named, waiting.currency, paid_txid, paid_raw, paid_fee);
    insert into wallet.inputs (currency, txid, output_index, withdrawal_id)
    select waiting.currency, i.txid, i.output_index, named
    from unnest(input_txids, input_indexes) as i (txid, output_index);
    update wallet.withdrawals as w set status = 4, problem = null where w.withdrawal_id = named;
    return true;
end
$$;

-- A node has the payment: in its mempool, or under this many blocks. It is CONFIRMED for good once those are enough.
create function wallet.note_seen(named text, blocks integer) returns void
language plpgsql as $$
begin
    update wallet.payments as p
    set confirmations = blocks, sent_at = coalesce(p.sent_at, clock_timestamp())
    where p.withdrawal_id = named and (p.confirmations <> blocks or p.sent_at is null);
    update wallet.withdrawals as w
    set status = case when blocks >= h.confirmations then 6 else 5 end, problem = null
    from wallet.hot_wallets as h
    where w.withdrawal_id = named and w.status in (4, 5) and h.currency = w.currency
        and (w.status = 4 or blocks >= h.confirmations or w.problem is not null);
end
$$;

-- Which node this is: false where the database belongs to another network, or has withdrawals of another already.
create function wallet.bind_network(seen smallint) returns boolean
language plpgsql as $$
begin
    update wallet.settings as s
    set network = seen, bound_at = clock_timestamp()
    where s.bound_at is null
        and (s.network = seen or not exists (select from wallet.withdrawals) and not exists (select from wallet.deposits));
    return (select s.bound_at is not null and s.network = seen from wallet.settings as s);
end
$$;
