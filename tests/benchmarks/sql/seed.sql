-- Accounts as if each had been opened and credited by a transaction long ago, one for each user.
-- Many share a branch, whose postings they are, and its decision.
with logs as (
    insert into pincex.logs (log_id) values ('00000000000000bb') returning log
), numbered as materialized (
    select nextval('pincex.branch_numbers') as branch, n as place
    from generate_series(0, (cardinality(%(users)s::text[]) - 1) / 10000) as n
), branches as (
    insert into pincex.branches (phase, vote, log, branch, xid, prepared_unix_ms, incarnation, sequence)
    select 3, 1, l.log, n.branch, gen_random_uuid(), 1, 1, n.place + 1 from numbered as n cross join logs as l
), opened as (
    insert into bookkeeper.accounts (user_id, currency, balance)
    select u.name, %(currency)s, %(balance)s from unnest(%(users)s::text[]) as u (name)
    returning account
), counted as (
    select o.account, row_number() over (order by o.account) - 1 as number from opened as o
)
insert into bookkeeper.entries (branch, kind, operation, debit_account, credit_account, amount, draw, posted_at)
select n.branch, 2, c.number %% 10000, 0, c.account, %(balance)s, 0, now()
from counted as c join numbered as n on n.place = c.number / 10000;
