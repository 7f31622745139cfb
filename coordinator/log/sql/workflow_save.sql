-- Keep changes of workflows that the incarnation owns, if it may; which ones were kept.
WITH live AS MATERIALIZED (
    SELECT incarnation
    FROM txlog.incarnations
    WHERE incarnation = %(incarnation)s AND fenced_at IS NULL AND timeline = txlog.current_timeline()
    FOR SHARE
), saved AS (
    UPDATE txlog.workflows AS workflow
    SET phase = changed.phase, ended_unix_ms = changed.ended_unix_ms, failure = changed.failure,
        stuck = changed.stuck, cancelled = changed.cancelled, result = changed.result
    FROM live,
         jsonb_to_recordset(%(workflows)s::jsonb) AS changed (
             workflow_id uuid, phase smallint, ended_unix_ms bigint, failure text, stuck text, cancelled text,
             result text
         )
    WHERE workflow.workflow_id = changed.workflow_id AND workflow.incarnation = live.incarnation
    RETURNING workflow.workflow_id
), steps AS (
    INSERT INTO txlog.workflow_steps AS known
        (workflow_id, position, name, kind, digest, compensation, is_pivot, phase, round, undo_round, attempts, xid,
         undo_xid, reason, message, results, began_unix_ms, ended_unix_ms)
    SELECT workflow_id, position, name, kind, decode(digest, 'hex'), compensation, is_pivot, phase, round, undo_round,
           attempts, xid, undo_xid, reason, message, results, began_unix_ms, ended_unix_ms
    FROM saved
    JOIN jsonb_to_recordset(%(steps)s::jsonb) AS step (
        workflow_id uuid, position integer, name text, kind smallint, digest text, compensation text,
        is_pivot boolean, phase smallint, round integer, undo_round integer, attempts integer, xid uuid,
        undo_xid uuid, reason text, message text, results text, began_unix_ms bigint, ended_unix_ms bigint
    ) USING (workflow_id)
    ON CONFLICT (workflow_id, position) DO UPDATE
    SET phase = excluded.phase, round = excluded.round, undo_round = excluded.undo_round,
        attempts = excluded.attempts, xid = excluded.xid, undo_xid = excluded.undo_xid, reason = excluded.reason,
        message = excluded.message, results = excluded.results, ended_unix_ms = excluded.ended_unix_ms
), acted AS (
    INSERT INTO txlog.operator_actions (action, participant, detail, reason)
    SELECT act.action, act.participant, act.detail, act.reason
    FROM saved
    JOIN jsonb_to_recordset(%(actions)s::jsonb) AS act (
        workflow_id uuid, action text, participant text, detail text, reason text
    ) USING (workflow_id)
)
SELECT workflow_id FROM saved
