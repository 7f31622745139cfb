-- The limits' decision log.
create table decisions (
    id uuid primary key,
    decision smallint not null
);
