-- HOLD begins a new epoch, participants' acknowledgements are kept, operators' hands are seen.

-- A number is the first of an epoch only above this one: HOLD ends the epoch that stood before it (R15).
ALTER TABLE txlog.log ADD COLUMN epoch_after bigint NOT NULL DEFAULT 0;

-- fenced_by 0: ended by its own will or by HOLD, and taken over by nobody yet.
-- timeline 0: remembered by participants alone, and put back by the release of HOLD.
CREATE INDEX incarnations_live ON txlog.incarnations (incarnation) WHERE fenced_at IS NULL;

-- The highest sequence of each incarnation that each participant acknowledged as committed.
CREATE TABLE txlog.applied (
    incarnation bigint NOT NULL,
    participant text NOT NULL,
    sequence    bigint NOT NULL,
    PRIMARY KEY (participant, incarnation)
) WITH (fillfactor = 50);

ALTER TABLE txlog.heuristics
    ADD COLUMN forgotten_at     timestamptz,
    ADD COLUMN forgotten_reason text;

CREATE INDEX heuristics_open ON txlog.heuristics (xid, participant) WHERE forgotten_at IS NULL;

-- What operators did by hand, kept for good. action: HOLD, RELEASE, RESOLVE, FORGET.
CREATE TABLE txlog.operator_actions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    action      text NOT NULL,
    xid         uuid,
    participant text NOT NULL,
    detail      text NOT NULL,
    reason      text NOT NULL
);

-- When a transaction was given its xid: the first 48 bits.
CREATE FUNCTION txlog.xid_unix_ms(xid uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT ('x' || translate(left(xid::text, 13), '-', ''))::bit(48)::bigint $$;

-- The lowest xid of a moment: what is below it is older.
CREATE FUNCTION txlog.lowest_xid(unix_ms bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT rpad(lpad(to_hex(greatest(unix_ms, 0)), 12, '0'), 32, '0')::uuid $$;
