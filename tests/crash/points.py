"""The catalogue: every moment at which a process of the product is killed on purpose."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

from tests.crash.exchange_points import EXCHANGE_POINTS
from tests.crash.placing import Need, Part, Point, Where, patches_of
from tests.crash.workflow_points import WORKFLOW_POINTS
from tests.patching import Patch

_BEFORE, _AFTER, _ENTRY = Where.BEFORE, Where.AFTER, Where.ENTRY
_coordinator = partial(Point, part=Part.COORDINATOR)
_reservation = partial(Point, part=Part.RESERVATION)
_xa = partial(Point, part=Part.XA)

_append = partial(
    _coordinator,
    module="coordinator.log.appends",
    function="Appends._round",
    anchor="appended = await self._log.append(",
)
_ENGINE: Final = "coordinator.engine"
_LINK: Final = "participant_sdk.link"
_sent = partial(_coordinator, module=_LINK, function="Link._send_all", anchor="await stream.send(frame)")
_taken = partial(_coordinator, module=_LINK, function="Link._take")
_voted = partial(_taken, anchor="self._events.voted(")
_door = partial(
    _coordinator,
    module="coordinator.api.grpc_transaction",
    function="TransactionService.Execute",
    anchor="grpc_wire.write_ended(",
)
_LIFE: Final = "coordinator.incarnation"
_checkpoint = partial(
    _coordinator,
    module=_LIFE,
    function="IncarnationLife.write_checkpoints",
    anchor="await self._log.checkpoint(",
)
_kept = partial(
    _coordinator,
    module="coordinator.heuristic_keeper",
    function="HeuristicKeeper._write",
    anchor="await self._log.record_heuristics(",
    need=Need.FORCE,
)
_unfinished = partial(
    _coordinator,
    module=_LIFE,
    function="IncarnationLife._adopt",
    anchor="unfinished = await self._log.unfinished(",
    first="COMMIT_FRAME_BEFORE",
)
_resigned = partial(
    _coordinator,
    module=_LIFE,
    function="IncarnationLife.resign",
    anchor="await self._log.resign(",
    need=Need.STOP,
)
_redo = partial(
    _coordinator,
    module="coordinator.recovery",
    function="Recovery._drive_all",
    anchor="self._engine.drive(",
    first="COMMIT_FRAME_BEFORE",
)
_ROLLBACKS: Final = "any(record.decision.name == 'ROLLBACK' for record in records)"

_COORDINATOR: Final = (
    _coordinator("EXECUTE_BEGUN", module=_ENGINE, function="Engine.submit", where=_AFTER, anchor="self._take("),
    _sent("PREPARE_FRAME_BEFORE", where=_BEFORE, when="frame.HasField('prepares')"),
    _sent("PREPARE_FRAME_AFTER", where=_AFTER, when="frame.HasField('prepares')"),
    _voted("VOTES_RECEIVED", where=_BEFORE),
    _voted("VOTES_COUNTED", where=_AFTER),
    _append("APPEND_BEFORE", where=_BEFORE, when="records"),
    _append("APPEND_UNDER_WAY", where=_BEFORE, when="records", delay_s=0.001),
    _append("APPEND_ANSWERED", where=_AFTER, when="records"),
    _append("BINDING_BEFORE", where=_BEFORE, when=_ROLLBACKS),
    _append("BINDING_ANSWERED", where=_AFTER, when=_ROLLBACKS),
    _coordinator(
        "LOOKUP", module="coordinator.log.group_commit", function="GroupCommit._look_up", where=_ENTRY, need=Need.OUTAGE
    ),
    _coordinator("RECORDED", module=_ENGINE, function="Engine.recorded", where=_ENTRY),
    _coordinator(
        "RECORDED_TAKEN", module=_ENGINE, function="Engine.recorded", where=_AFTER, anchor="self._take(running,"
    ),
    _sent("COMMIT_FRAME_BEFORE", where=_BEFORE, when="frame.commits"),
    _sent("COMMIT_FRAME_AFTER", where=_AFTER, when="frame.commits"),
    _sent("ROLLBACK_FRAME_BEFORE", where=_BEFORE, when="frame.HasField('rollbacks')"),
    _sent("ROLLBACK_FRAME_AFTER", where=_AFTER, when="frame.HasField('rollbacks')"),
    _taken("COMMIT_ACKS_RECEIVED", where=_BEFORE, anchor="self._events.acknowledged(self.name, Decision.COMMIT"),
    _taken("COMMIT_ACKS_COUNTED", where=_AFTER, anchor="self._events.acknowledged(self.name, Decision.COMMIT"),
    _taken(
        "ROLLBACK_ACKS_RECEIVED",
        where=_BEFORE,
        anchor="self._events.acknowledged(self.name, Decision.ROLLBACK",
    ),
    _door("REPLY_BEFORE", where=_BEFORE),
    _door("REPLY_AFTER", where=_AFTER),
    _kept("HEURISTIC_BEFORE", where=_BEFORE),
    _kept("HEURISTIC_AFTER", where=_AFTER),
    _checkpoint("CHECKPOINT_BEFORE", where=_BEFORE),
    _checkpoint("CHECKPOINT_AFTER", where=_AFTER),
    _coordinator(
        "INCARNATION_DRAWN",
        module="coordinator.daemon",
        function="Daemon._until_ended",
        where=_AFTER,
        anchor="opened = await",
        first="COMMIT_FRAME_BEFORE",
        need=Need.START,
    ),
    _coordinator(
        "LINK_UP", module=_LINK, function="Link._open", where=_ENTRY, first="COMMIT_FRAME_BEFORE", need=Need.START
    ),
    _coordinator(
        "FENCE_BEFORE",
        module=_LIFE,
        function="IncarnationLife.take_over",
        where=_BEFORE,
        anchor="for number in await self._log.fence_expired(",
        when="may_fence",
        first="COMMIT_FRAME_BEFORE",
    ),
    _coordinator(
        "FENCE_AFTER",
        module=_LIFE,
        function="IncarnationLife.take_over",
        where=_BEFORE,
        anchor="if restored or number not in self._completions",
        first="COMMIT_FRAME_BEFORE",
    ),
    _unfinished("ADOPT_BEFORE", where=_BEFORE),
    _unfinished("ADOPT_READ", where=_AFTER),
    _coordinator(
        "ADOPT_CONFIRMED",
        module=_LIFE,
        function="IncarnationLife._adopt",
        where=_AFTER,
        anchor="await self._group_commit.confirm()",
        first="COMMIT_FRAME_BEFORE",
    ),
    _redo("REDO_BEFORE", where=_BEFORE),
    _redo("REDO_AFTER", where=_AFTER),
    _coordinator(
        "SWEEP_TELLS",
        module="coordinator.sweep",
        function="Sweep._tell",
        where=_ENTRY,
        when="answer is not None and answer.state.name in ('COMMIT', 'ROLLBACK')",
        first="PREPARE_FRAME_AFTER",
    ),
    _resigned("RESIGN_BEFORE", where=_BEFORE),
    _resigned("RESIGN_AFTER", where=_AFTER),
    _coordinator(
        "INQUIRY_ASKED",
        module="coordinator.inquiries",
        function="Inquiries.decision",
        where=_ENTRY,
        need=Need.OUTAGE,
    ),
)

_worked = partial(
    _reservation,
    module="participant_sdk.worker",
    function="Workers._attempt",
    anchor="answers = await self._participant.apply(",
)
_answered = partial(
    _reservation,
    module="participant_sdk.session",
    function="_Session._write_all",
    anchor="await self._stream.send(frame)",
)
_epoch = partial(
    _reservation,
    module="participant_sdk.known_logs",
    function="KnownLogs.admit",
    anchor="adopted = await self._participant.adopt_epoch(",
    first="VOTE_FRAME_BEFORE",
)

_RESERVATION: Final = (
    _worked("BATCH_BEFORE", where=_BEFORE, when="work.prepares"),
    _worked("BATCH_UNDER_WAY", where=_BEFORE, when="work.prepares", delay_s=0.002),
    _worked("BATCH_AFTER", where=_AFTER, when="work.prepares"),
    _worked("POSTING_BEFORE", where=_BEFORE, when="work.commits"),
    _worked("POSTING_UNDER_WAY", where=_BEFORE, when="work.commits", delay_s=0.002),
    _worked("POSTING_AFTER", where=_AFTER, when="work.commits"),
    _worked("VOIDING_BEFORE", where=_BEFORE, when="work.rollbacks"),
    _worked("VOIDING_AFTER", where=_AFTER, when="work.rollbacks"),
    _answered("VOTE_FRAME_BEFORE", where=_BEFORE, when="frame.HasField('votes')"),
    _answered("VOTE_FRAME_AFTER", where=_AFTER, when="frame.HasField('votes')"),
    _answered("ACK_FRAME_BEFORE", where=_BEFORE, when="frame.HasField('commit_acks')"),
    _answered("ACK_FRAME_AFTER", where=_AFTER, when="frame.HasField('commit_acks')"),
    _epoch("EPOCH_BEFORE", where=_BEFORE),
    _epoch("EPOCH_AFTER", where=_AFTER),
    _reservation(
        "ANSWER_LEARNED",
        module="participant_sdk.inquiry",
        function="Inquiry._apply",
        where=_ENTRY,
        when="answer.state.name in ('COMMIT', 'ROLLBACK')",
        first="VOTE_FRAME_BEFORE",
    ),
    _reservation(
        "ANSWER_APPLIED",
        module="participant_sdk.inquiry",
        function="Inquiry._told",
        where=_ENTRY,
        first="VOTE_FRAME_BEFORE",
    ),
)

_finished = partial(
    _xa,
    module="participant_sdk.resources.postgres_finish",
    function="_finish_share",
    anchor="ended = await session.end_each(",
)
_BRANCH: Final = "participant_sdk.resources.postgres_branch"

_XA: Final = (
    _xa(
        "XA_OPENED",
        module="participant_sdk.resources.postgres_prepare",
        function="Preparing.prepare",
        where=_AFTER,
        anchor="opened = await self._opening.ask(",
    ),
    _xa("XA_PREPARE_BEFORE", module=_BRANCH, function="BranchTransaction._run_as_one", where=_BEFORE, anchor="try:"),
    _xa(
        "XA_PREPARE_UNDER_WAY",
        module=_BRANCH,
        function="BranchTransaction._run_as_one",
        where=_BEFORE,
        anchor="try:",
        delay_s=0.001,
    ),
    _xa(
        "XA_PREPARED",
        module=_BRANCH,
        function="BranchTransaction._run_as_one",
        where=_BEFORE,
        anchor="return _prepared(tag)",
    ),
    _xa(
        "XA_RESULTS_KEPT",
        module=_BRANCH,
        function="BranchTransaction.end",
        where=_AFTER,
        anchor="await self.keep_results(",
    ),
    _xa(
        "XA_STEPS_PREPARED",
        module=_BRANCH,
        function="BranchTransaction.end",
        where=_AFTER,
        anchor="with self.session.confirmed():",
    ),
    _xa(
        "XA_DECIDED",
        module="participant_sdk.resources.postgres_xa",
        function="PostgresXaResource._commit",
        where=_AFTER,
        anchor="found = await self._rows.decide(",
    ),
    _finished("XA_COMMIT_BEFORE", where=_BEFORE, when="outcome.name == 'COMMIT'"),
    _finished("XA_COMMIT_AFTER", where=_AFTER, when="outcome.name == 'COMMIT'"),
    _finished("XA_ROLLBACK_BEFORE", where=_BEFORE, when="outcome.name == 'ROLLBACK'"),
    _finished("XA_ROLLBACK_AFTER", where=_AFTER, when="outcome.name == 'ROLLBACK'"),
    _xa(
        "XA_BURIED",
        module="participant_sdk.resources.postgres_ending",
        function="Ending._bury",
        where=_AFTER,
        anchor="buried = await",
    ),
)

POINTS: Final = (*_COORDINATOR, *_RESERVATION, *_XA)
# With those that only a workflow comes by, and those of the whole exchange.
EVERY_POINT: Final = (*POINTS, *WORKFLOW_POINTS, *EXCHANGE_POINTS)


def patches(parts: Collection[Part] = tuple(Part)) -> dict[str, Patch]:
    """The patches that put every point of these parts in its place."""
    return patches_of([point for point in EVERY_POINT if point.part in parts])


def parts_of(command: str) -> Collection[Part]:
    """The parts that a process has which is started so: participants share what serves them."""
    match command:
        case "coordinator":
            return (Part.COORDINATOR,)
        case "tests.crash.company":
            return (Part.COMPANY,)
        case _:
            return (Part.RESERVATION, Part.XA)


def named(name: str) -> Point:
    """The point of this name."""
    return next(point for point in EVERY_POINT if point.name == name)
