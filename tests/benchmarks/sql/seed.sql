-- Accounts as if each had been opened and credited by a transaction long ago: users "0" to accounts - 1.
-- Many share a branch, whose postings they are, and its decision.
with logs as (
    insert into pincex.logs (log_id) values ('00000000000000bb') returning log
), numbered as materialized (
    select nextval('pincex.branch_numbers') as branch, n as place
    from generate_series(0, (%(accounts)s - 1) / 10000) as n
), branches as (
    insert into pincex.branches (phase, vote, log, branch, xid, prepared_unix_ms, incarnation, sequence)
    select 3, 1, l.log, n.branch, gen_random_uuid(), 1, 1, n.place + 1 from numbered as n cross join logs as l
), opened as (
    insert into bookkeeper.accounts (user_id, currency, balance)
    select n::text, %(currency)s, %(balance)s from generate_series(0, %(accounts)s - 1) as n
    returning account, user_id::integer as number
)
insert into bookkeeper.entries (branch, kind, operation, debit_account, credit_account, amount, draw, posted_at)
select n.branch, 2, o.number %% 10000, 0, o.account, %(balance)s, 0, now()
from opened as o join numbered as n on n.place = o.number / 10000;
