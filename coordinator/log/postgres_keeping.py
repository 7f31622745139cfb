"""The statements on PostgreSQL that keep the log: HOLD and its end, fencing, pruning, heuristics, audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from coordinator.log.columns import UuidArray, pack, storable
from coordinator.log.connection import Run
from coordinator.log.decision_log import (
    Checkpoint,
    Incarnation,
    LiveIncarnation,
    LogUnavailableError,
    OperatorAction,
    Release,
    ReleaseRefusedError,
    Standing,
)
from coordinator.log.postgres_statements import PostgresStatements, stored_decision
from coordinator.log.releasing import check_columns, raised_sequences
from coordinator.log.workflow_log import CLOCKS_APART_MAX_MS
from coordinator.protocol.effects import HeuristicRecord, StoredDecision
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, Heuristic

# How many rows one statement puts back: well within its time.
RESTORED_AT_ONCE: Final = 1_000


class PostgresKeeping(PostgresStatements):
    """The keeping half of ``PostgresLog``."""

    async def standing(self) -> Standing:
        """How the log stands now."""
        rows = await self._read("standing", {})
        if not rows:
            raise LogUnavailableError("the decision log was never opened")
        held_since_unix_ms, held_reason, pruned_below_unix_ms = rows[0][:3]
        live = tuple(LiveIncarnation(*row[3:]) for row in rows if row[3] is not None)
        return Standing(held_since_unix_ms, held_reason, pruned_below_unix_ms, live)

    async def fence_expired(self, incarnation: Incarnation, *, resigned_only: bool = False) -> Sequence[int]:
        """Fence the expired, adopt the resigned; return the numbers of those to take over (R6)."""
        parameters = {"incarnation": Int8(incarnation.number), "resigned_only": resigned_only}
        return [number for (number,) in await self._keep("fence_expired", parameters)]

    async def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Read an incarnation's decisions that its checkpoint does not call finished, by sequence."""
        rows = await self._read("unfinished", {"incarnation": Int8(incarnation)})
        return [stored_decision(row) for row in rows]

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace an incarnation's checkpoint. Not forced to disk."""
        parameters = {
            "incarnation": Int8(checkpoint.incarnation),
            "finished_through": Int8(checkpoint.finished_through),
            "stragglers": UuidArray.of(sorted(checkpoint.stragglers)),
            "participants": list(checkpoint.applied),
            "sequences": list(checkpoint.applied.values()),
        }
        await self._keep("checkpoint", parameters)

    async def read_sequences(self, numbers: Sequence[int]) -> Mapping[int, int]:
        """Read the last sequence of incarnations that the log knows."""
        return dict(await self._read("read_sequences", {"incarnations": list(numbers)}))

    async def read_applied(self, participant: str) -> Mapping[int, int]:
        """Read by incarnation the highest sequence that a participant acknowledged."""
        return dict(await self._read("read_applied", {"participant": participant}))

    async def commits_above(self, participant: str, above: Mapping[int, int], limit: int) -> Sequence[StoredDecision]:
        """Read retained COMMITs that a participant prepared, above sequences, in order."""
        parameters = {
            "incarnations": list(above),
            "sequences": list(above.values()),
            "participant": participant,
            "limit": Int8(limit),
        }
        return [stored_decision(row) for row in await self._read("commits_above", parameters)]

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD and fence every live incarnation, durably (R15)."""
        await self._keep("hold", {"reason": storable(reason)})

    async def hold_above(self, incarnation: Incarnation, epoch: int, reason: str) -> bool:
        """Put the log in HOLD, and have the next epoch be above one."""
        parameters = {"incarnation": Int8(incarnation.number), "epoch": Int8(epoch), "reason": storable(reason)}
        ((is_held,),) = await self._keep("hold_above", parameters)
        return bool(is_held)

    async def release(self, incarnation: Incarnation, release: Release) -> None:
        """End HOLD in one transaction, and put back what is restored (R15)."""
        check_columns(release)
        raised = raised_sequences(release, incarnation)
        parameters: dict[str, Int8 | list[int]] = {
            "incarnation": Int8(incarnation.number),
            "incarnations": list(raised),
            "sequences": list(raised.values()),
        }
        async with self._upkeep.transaction() as run:
            await run(self._sql["lock_log"], {})
            held_reason = _check_release(incarnation, await run(self._sql["release_check"], parameters))
            await run(self._sql["release_sequences"], parameters)
            for at in range(0, len(release.restored), RESTORED_AT_ONCE):
                await self._restore(run, release.restored[at : at + RESTORED_AT_ONCE])
            await run(self._sql["release_end"], {})
            detail = f"restored {len(release.restored)}, held: {held_reason}"
            await run(self._sql["record_action"], _action(OperatorAction("RELEASE", release.reason, detail=detail)))

    async def _restore(self, run: Run, restored: Sequence[StoredDecision]) -> None:
        parameters = {
            **pack([stored.record for stored in restored])._asdict(),
            "incarnations": [stored.incarnation for stored in restored],
            "sequences": [stored.sequence for stored in restored],
            "decided_unix_ms": [stored.decided_unix_ms for stored in restored],
        }
        for xid, decision, bound in await run(self._sql["release_decisions"], parameters):
            if decision is not None:
                raise ReleaseRefusedError(
                    f"transaction {xid} was committed, and the log says {Decision(decision).name}"
                )
            raise ReleaseRefusedError(
                f"transaction {xid} was committed, and its request is bound to transaction {bound}"
            )

    async def resign(self, incarnation: Incarnation) -> None:
        """End this incarnation by its own will."""
        await self._keep("resign", {"incarnation": Int8(incarnation.number)})

    async def prune(self, retention_s: float, limit: int, now_unix_ms: int) -> int:
        """Raise the horizon, and delete decisions below it (R14)."""
        parameters = {
            "retention_s": float(retention_s),
            "limit": Int8(limit),
            "now_unix_ms": Int8(now_unix_ms),
            "clocks_apart_ms": Int8(CLOCKS_APART_MAX_MS),
        }
        async with self._upkeep.transaction() as run:
            # First, as by all that lock more than their own: those whose rows go may be waited for by appends.
            await run(self._sql["lock_log"], {})
            await run(self._sql["prune_by_index"], {})
            ((count,),) = await run(self._sql["prune"], parameters)
            await run(self._sql["workflow_prune"], parameters)
        return count

    async def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Keep heuristic ends durably, each once. What PostgreSQL cannot keep of a message is replaced."""
        parameters = {
            "xids": UuidArray.of([record.xid for record in records]),
            "participants": [record.participant for record in records],
            "heuristics": [int(record.heuristic) for record in records],
            "messages": [storable(record.message) for record in records],
        }
        await self._keep("record_heuristics", parameters)

    async def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Read the heuristic ends kept of a transaction, by participant."""
        return _heuristics(await self._read("read_heuristics", {"xid": xid}))

    async def list_heuristics(self, after: Xid | None, limit: int) -> Sequence[HeuristicRecord]:
        """Read heuristic ends that are not forgotten, by xid and participant."""
        return _heuristics(await self._read("list_heuristics", {"after": after, "limit": Int8(limit)}))

    async def forget_heuristics(self, xid: Xid, reason: str) -> Sequence[HeuristicRecord]:
        """Mark a transaction's heuristic ends as dealt with."""
        return _heuristics(await self._keep("forget_heuristics", {"xid": xid, "reason": storable(reason)}))

    async def draw_lock_epoch(self, reason: str) -> int:
        """Draw an epoch of fencing tokens, durably."""
        ((epoch,),) = await self._keep("draw_lock_epoch", {"reason": storable(reason)})
        return int(epoch)

    async def highest_lock_epoch(self) -> int:
        """Read the highest epoch of fencing tokens ever drawn."""
        ((epoch,),) = await self._read("highest_lock_epoch", {})
        return int(epoch)

    async def record_action(self, action: OperatorAction) -> None:
        """Keep durably what an operator did. What PostgreSQL cannot keep of its texts is replaced."""
        await self._keep("record_action", _action(action))


def _check_release(incarnation: Incarnation, rows: Sequence[TupleRow]) -> str:
    """HOLD's reason; ReleaseRefusedError when it may not end by this incarnation's hand."""
    held, held_reason, lives, invented = rows[0] if rows else (False, "", False, None)
    if not held:
        raise ReleaseRefusedError("the log is not in HOLD")
    if not lives:
        raise ReleaseRefusedError(f"incarnation {incarnation.number} is fenced")
    if invented is not None:
        raise ReleaseRefusedError(f"incarnation {invented} lives, and never wrote what is said to be its")
    return held_reason or ""


def _heuristics(rows: Sequence[TupleRow]) -> list[HeuristicRecord]:
    return [HeuristicRecord(row[0], row[1], Heuristic(row[2]), row[3]) for row in rows]


def _action(action: OperatorAction) -> dict[str, str | Xid | None]:
    return {
        "action": action.action,
        "xid": action.xid,
        "participant": action.participant,
        "detail": storable(action.detail),
        "reason": storable(action.reason),
    }
