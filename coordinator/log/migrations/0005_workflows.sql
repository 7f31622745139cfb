-- Workflows: functions whose steps are transactions. What their steps came to, the decisions tell.

-- phase: 1 RUNNING, 2 COMPENSATING, 3 COMPLETED, 4 COMPENSATED. failure, stuck: [code, message, step], in JSON.
CREATE TABLE txlog.workflows (
    workflow_id      uuid PRIMARY KEY,
    kind             text NOT NULL,
    version          text NOT NULL,
    parameters       text NOT NULL,
    tenant           text,
    request_id       text,
    request_digest   bytea NOT NULL,
    incarnation      bigint NOT NULL REFERENCES txlog.incarnations,
    deadline_unix_ms bigint NOT NULL,
    phase            smallint NOT NULL CHECK (phase BETWEEN 1 AND 4),
    ended_unix_ms    bigint NOT NULL DEFAULT 0,
    failure          text,
    stuck            text,
    cancelled        text NOT NULL DEFAULT '',
    result           text NOT NULL DEFAULT '',
    CHECK ((tenant IS NULL) = (request_id IS NULL))
);

CREATE UNIQUE INDEX workflows_request ON txlog.workflows (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX workflows_unfinished ON txlog.workflows (incarnation, workflow_id) WHERE phase IN (1, 2);

-- kind: 1 TRANSACTION, 2 READ. phase: 1 ASKED, 2 COMMITTED, 3 REFUSED, 4 SKIPPED, 5 UNDOING, 6 UNDONE, 7 LEFT.
CREATE TABLE txlog.workflow_steps (
    workflow_id   uuid NOT NULL REFERENCES txlog.workflows ON DELETE CASCADE,
    position      integer NOT NULL,
    name          text NOT NULL,
    kind          smallint NOT NULL CHECK (kind IN (1, 2)),
    digest        bytea NOT NULL,
    compensation  text NOT NULL,
    is_pivot      boolean NOT NULL,
    phase         smallint NOT NULL CHECK (phase BETWEEN 1 AND 7),
    round         integer NOT NULL,
    undo_round    integer NOT NULL,
    attempts      integer NOT NULL,
    xid           uuid,
    undo_xid      uuid,
    reason        text NOT NULL,
    message       text NOT NULL,
    results       text NOT NULL,
    began_unix_ms bigint NOT NULL,
    ended_unix_ms bigint NOT NULL,
    PRIMARY KEY (workflow_id, position)
);
