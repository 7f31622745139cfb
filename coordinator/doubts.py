"""The branches in doubt at all participants, page by page, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from coordinator import advice
from coordinator.admission import unknown_service
from coordinator.engine import Engine
from coordinator.errors import InvalidRequestError, UnavailableError
from coordinator.incarnation import IncarnationLife
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, Standing
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid, check_participant
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resource_calls import CallFailedError, ResourceCalls
from participant_sdk.xa import DecisionState

PAGE_MAX: Final = 1_000
# So many pages of one participant are read at most to fill one of the list.
READ_AT_ONCE_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A branch in doubt, or ended by hand, with what is known of its decision; ``state`` is None if unread."""

    participant: str
    branch: Branch
    state: DecisionState | None
    advice: str


@dataclass(frozen=True, slots=True)
class InDoubtPage:
    """Branches, and the token of the next page, empty on the last. ``unreachable`` ones' branches are missing."""

    branches: tuple[InDoubt, ...]
    next_token: str
    unreachable: tuple[str, ...]


class _Place(NamedTuple):
    """A branch's place in the list: by xid, then by participant."""

    xid: Xid
    participant: str

    def before(self) -> Xid | None:
        """The xid above which this one's branches come, all of them; None for no such."""
        before = int.from_bytes(self.xid, "big") - 1
        return None if before < 0 else Xid(before.to_bytes(len(self.xid), "big"))


class _Listed(NamedTuple):
    """What one participant lists later than a place: branches by xid, from one or more of its pages.

    ``pages`` are their tokens, each with the last of these branches on it, None for none. Where the list goes on,
    with ``next_token``, there is one branch at least.
    """

    participant: str
    branches: Sequence[Branch]
    pages: Sequence[tuple[str, _Place | None]]
    next_token: str

    @property
    def end(self) -> _Place | None:
        """Up to where all is known; None where the list does not go on."""
        return _Place(self.branches[-1].xid, self.participant) if self.next_token else None

    def token_after(self, shown: _Place) -> str:
        """The page to read next, when all up to this place has been shown."""
        for token, last in self.pages:
            if last is not None and last > shown:
                return token
        return self.next_token or self.pages[-1][0]


class Doubts:
    """Lists what participants hold, and ends by hand that only the log remembers, until they are forgotten (R12).

    Nothing is changed, but that an xid of our own without a trace is recorded (R7).
    """

    def __init__(
        self,
        engine: Engine,
        inquiries: Inquiries,
        log: DecisionLog,
        calls: Mapping[str, ResourceCalls],
        life: IncarnationLife,
    ) -> None:
        self._engine = engine
        self._inquiries = inquiries
        self._log = log
        self._calls = calls
        self._life = life

    async def page(self, participant: str, token: str, limit: int) -> InDoubtPage:
        """A page of branches, of one participant or (empty) of all. InvalidRequestError names what is wrong."""
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidRequestError(f"from 1 to {PAGE_MAX}, not {limit}", field="page_size")
        if participant and participant not in self._calls:
            raise unknown_service(participant, self._calls, field="participant")
        place, tokens = _read_token(token)
        names = [participant] if participant else sorted(self._calls)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(self._list(name, place, tokens.get(name, ""), limit)) for name in names]
        lists = dict(zip(names, (task.result() for task in asking), strict=True))
        kept = await self._kept(participant, place, limit)
        branches = {_Place(branch.xid, record): branch for record, branch in kept}
        reached = [listed for listed in lists.values() if listed is not None]
        branches |= {_Place(each.xid, listed.participant): each for listed in reached for each in listed.branches}
        found = sorted(branches)
        # Where a list goes on, more may come right behind its last: that is for the next page.
        ends = [listed.end for listed in reached if listed.end is not None]
        ends += [_Place(branch.xid, record) for record, branch in kept[limit - 1 :]]
        shown = [each for each in found if all(each <= end for end in ends)][:limit]
        tokens |= {listed.participant: listed.token_after(shown[-1]) for listed in reached if shown}
        return InDoubtPage(
            await self._judge([(each.participant, branches[each]) for each in shown]),
            _write_token(shown[-1], tokens) if ends or len(shown) < len(found) else "",
            tuple(name for name, listed in lists.items() if listed is None),
        )

    async def _list(self, name: str, place: _Place | None, token: str, limit: int) -> _Listed | None:
        """What the participant lists from a page on, as many as are wanted; None where that cannot be had."""
        log_id = self._engine.incarnation.log_id
        found: list[Branch] = []
        pages: list[tuple[str, _Place | None]] = []
        while len(pages) < READ_AT_ONCE_MAX:
            try:
                page, next_token = await self._calls[name].recover(RecoverQuery(log_id, limit=limit), token)
            except CallFailedError:
                return None
            # What belongs to another log is another's to show (R18).
            ours = [branch for branch in page if branch.log_id == log_id]
            later = [branch for branch in ours if place is None or _Place(branch.xid, name) > place]
            found += later
            pages.append((token, _Place(later[-1].xid, name) if later else None))
            if not next_token or len(found) >= limit:
                return _Listed(name, found, pages, next_token)
            if next_token == token:
                return None
            token = next_token
        return _Listed(name, found, pages, token) if found else None

    async def _kept(self, participant: str, place: _Place | None, limit: int) -> list[tuple[str, Branch]]:
        """Ends by hand that the log keeps and nobody has forgotten: a participant may know nothing of its own (R11)."""
        log_id = self._engine.incarnation.log_id
        after = place.before() if place is not None else None
        found: list[tuple[str, Branch]] = []
        while len(found) < limit:
            try:
                rows = await self._log.list_heuristics(after, PAGE_MAX)
            except LogUnavailableError:
                # Then no decision can be told either; whoever looks is told so.
                break
            found += [
                (row.participant, Branch(log_id, row.xid, BranchPhase.HEURISTIC, None, row.heuristic, row.message))
                for row in rows
                if participant in ("", row.participant) and (place is None or (row.xid, row.participant) > place)
            ]
            if len(rows) < PAGE_MAX:
                break
            # The last one's rows may go on: begin with it again, its rows that were found being the same.
            last = rows[-1].xid
            found = [each for each in found if each[1].xid != last]
            after = _Place(last, "").before()
        return found[:limit]

    async def _judge(self, shown: Sequence[tuple[str, Branch]]) -> tuple[InDoubt, ...]:
        xids = list(dict.fromkeys(branch.xid for _, branch in shown))
        participants = {branch.xid: branch.participants for _, branch in shown}
        async with asyncio.TaskGroup() as tasks:
            asking = {xid: tasks.create_task(self._state(xid, participants[xid])) for xid in xids}
        standing = self._life.standing
        return tuple(_described(name, branch, asking[branch.xid].result(), standing) for name, branch in shown)

    async def _state(self, xid: Xid, participants: Sequence[str]) -> DecisionState | None:
        try:
            return (await self._inquiries.decision(xid, participants)).state
        except UnavailableError:
            return None


def _described(participant: str, branch: Branch, state: DecisionState | None, standing: Standing | None) -> InDoubt:
    told = (
        advice.of_heuristic(branch.xid, branch.heuristic)
        if branch.phase is BranchPhase.HEURISTIC
        else advice.of_in_doubt(branch.xid, participant, state, standing)
    )
    return InDoubt(participant, branch, state, told)


def _write_token(place: _Place, tokens: Mapping[str, str]) -> str:
    """The last place shown, and each participant's own token of the page to read on from."""
    return f"{place.xid}/{place.participant}?{urlencode({name: tokens[name] for name in tokens if tokens[name]})}"


def _read_token(token: str) -> tuple[_Place | None, dict[str, str]]:
    if not token:
        return None, {}
    shown, _, tokens = token.partition("?")
    xid, _, participant = shown.partition("/")
    try:
        place = _Place(Xid.parse(xid), check_participant(participant))
        return place, dict(parse_qsl(tokens, strict_parsing=True) if tokens else ())
    except ValueError as error:
        raise InvalidRequestError(
            "not a page's token; leave it empty for the first page", field="page_token"
        ) from error
