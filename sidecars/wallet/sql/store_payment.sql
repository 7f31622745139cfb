-- Store a signed payment before it is sent; whether it was needed.
select wallet.store_payment(
    %(withdrawal_id)s, %(txid)s, %(raw)s, %(fee)s, %(input_txids)s::text[], %(input_indexes)s::integer[]
)
