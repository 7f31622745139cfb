-- How many COMMITs the log holds: in all, where the participant is NULL, and with each participant prepared.
-- Not those that it was filled with: they are no coordinator's.
with commits as materialized (
    select d.prepared
    from txlog.decisions as d join txlog.incarnations as i using (incarnation)
    where d.decision = 1 and i.coordinator <> 'filled'
)
select null as participant, count(*) from commits
union all
select p.participant, count(*) from commits as c cross join unnest(c.prepared) as p (participant) group by p.participant
