-- What the bank is to have told of: as many transfers as are to be recorded.
insert into fiat.bank_transfers (reference, transfer_id, currency, amount, iban, name, received_at)
select r.reference, r.reference, %(currency)s, %(amount)s, %(iban)s, 'load', now()
from unnest(%(references)s::text[]) as r (reference);
