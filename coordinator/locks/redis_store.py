"""The lock store on Redis: ``lua/*.lua``, each one atomic statement.

All keys of one log carry the same hash tag, ``{pincex:<log id>}``, so that a cluster keeps them
in one slot, on one node. One call locks many keys at once, whichever they are, all or nothing,
and who waits for whom is read as of one moment: both need one script over all of them. So a
cluster adds to the locks' availability, not to their rate, and different logs spread over it.
One node runs tens of thousands of these scripts a second: far more than a log decides.

An epoch of fencing tokens begins in two steps. It is drawn from the decision log and proposed;
then, if no higher one was drawn meanwhile, activated, which works only on what was proposed. So
between a draw and its use Redis may forget, restart or fail over at any moment, and others may
draw: an epoch runs only if all that ran before are lower.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Final

from coordinator.locks.claims import Claim, ClaimView, Mode, Owner, Phase, Standing, token_of
from coordinator.locks.epochs import Epochs
from coordinator.locks.lock_store import LockStoreUnavailableError
from coordinator.locks.redis_connection import RedisConnection, Reply
from participant_sdk.backoff import Backoff

NEWS_WITHIN_S: Final = 1.0
_ATTEMPTS_MAX: Final = 10
_AGAIN_FIRST_S: Final = 0.005
_AGAIN_CAP_S: Final = 0.2


class RedisLockStore:
    """One coordinator's way to the locks of a log in Redis."""

    def __init__(self, connection: RedisConnection, log_id: str, holder: int, epochs: Epochs, random: Random) -> None:
        self._connection = connection
        state = f"{{pincex:{log_id}}}:locks"
        self._keys: Final = (state, f"{state}:deadlines")
        self._news: Final = f"{state}:news:{holder}"
        self._epochs = epochs
        self._random = random
        self._beginning = asyncio.Lock()

    async def claim(self, claim: Claim, ttl_s: float) -> Standing:
        """Grant a claim, or have it wait."""
        epoch, told = await self._run("claim", claim.id, _written(claim), _ms(ttl_s))
        return _standing(epoch, told)

    async def release(self, ids: Collection[str]) -> None:
        """Forget these claims."""
        if ids:
            await self._run("release", *ids)

    async def beat(self, ids: Sequence[str], ttl_s: float) -> Mapping[str, Standing]:
        """Keep claims alive, and tell where each stands."""
        epoch, told = await self._run("beat", _ms(ttl_s), *ids)
        return {id_: _standing(epoch, each) for id_, each in zip(ids, told, strict=True)}

    async def condemn(self, id_: str, why: str) -> bool:
        """End a claim that waits."""
        _, told = await self._run("condemn", id_, why)
        return bool(told)

    async def break_key(self, key: str, why: str) -> Sequence[Claim]:
        """End every claim that holds this key."""
        _, told = await self._run("break", key, why)
        return [_claim(*pair)[0] for pair in zip(told[::2], told[1::2], strict=True)]

    async def look(self) -> Sequence[ClaimView]:
        """Every claim that holds or waits."""
        epoch, (now, *told) = await self._run("look")
        triples = zip(told[::3], told[1::3], told[2::3], strict=True)
        views = [_view(epoch, float(now), *triple) for triple in triples]
        return sorted(views, key=lambda view: view.place)

    async def news(self, within_s: float) -> Collection[str]:
        """Wait for claims whose standing others changed."""
        return set(await self._connection.pop(self._news, min(within_s, NEWS_WITHIN_S)))

    async def close(self) -> None:
        """Let go of connections."""
        await self._connection.close()

    async def _run(self, script: str, *arguments: str | int) -> tuple[int, Reply]:
        """Run a script in an epoch, beginning one where Redis has none; return the epoch and what it told."""
        backoff = Backoff(self._random, first_s=_AGAIN_FIRST_S, cap_s=_AGAIN_CAP_S)
        for _ in range(_ATTEMPTS_MAX):
            reply = await self._connection.run(script, self._keys, arguments)
            if reply[0] == b"ok":
                return int(reply[1]), reply[2] if len(reply) > 2 else None
            if not await self._begin(reply[1].decode()):
                await backoff.wait()
        raise LockStoreUnavailableError("the lock store is lost again and again before an epoch can begin")

    async def _begin(self, why: str) -> bool:
        """Begin an epoch, unless one runs by now; whether one runs."""
        async with self._beginning:
            epoch = await self._epochs.draw(f"Redis may have lost the locks: {why}")
            standing, is_active = await self._step("propose", epoch)
            if is_active or standing != epoch:
                return is_active
            if await self._epochs.highest() != epoch:
                return False
            return (await self._step("activate", epoch))[1]

    async def _step(self, step: str, epoch: int) -> tuple[int, bool]:
        standing, phase = await self._connection.run("begin", self._keys, (step, epoch))
        return int(standing), phase == b"active"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _written(claim: Claim) -> str:
    owner = claim.owner
    members = {"o": owner.name, "b": owner.born_unix_ms, "k": claim.keys, "m": int(claim.mode), "h": claim.holder}
    return json.dumps(members, separators=(",", ":"))


def _claim(id_: bytes, written: bytes) -> tuple[Claim, dict[str, Any]]:
    read: dict[str, Any] = json.loads(written)
    owner = Owner(read["o"], int(read["b"]))
    return Claim(id_.decode(), owner, tuple(read["k"]), Mode(read["m"]), int(read["h"])), read


def _view(epoch: int, now_ms: float, id_: bytes, written: bytes, expires: bytes) -> ClaimView:
    claim, read = _claim(id_, written)
    counter = int(read["g"])
    token = token_of(epoch, counter) if counter else 0
    return ClaimView(claim, token, int(read["p"]), int(now_ms - read["s"]), int(float(expires) - now_ms))


def _standing(epoch: int, told: Reply) -> Standing:
    phase, counter, why = told
    return Standing(Phase(phase), token_of(epoch, counter) if counter else 0, why.decode())
