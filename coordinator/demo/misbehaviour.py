"""How the bank and the chain misbehave during the day: slow, failing before and after, repeating, losing answers."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from coordinator.demo.callers import Callers

# As ``PUT /behaviour`` takes them: shares of all calls.
FAULTS: Final[tuple[dict[str, object], ...]] = (
    {"kind": "slow", "share": 0.06, "delay_ms": 400},
    {"kind": "fail_before", "share": 0.08},
    {"kind": "twice", "share": 0.10},
    {"kind": "fail_after", "share": 0.08},
    {"kind": "lost", "share": 0.08},
    {"kind": "late", "share": 0.06, "delay_ms": 700},
)
REORGANIZATIONS: Final = "reorganizations"
_TOLD_AGAIN_S: Final = 1.0
_REORGANIZED_SHARE: Final = 0.05


async def misbehave(callers: Callers, random: Random) -> None:
    """Have them misbehave until cancelled: told again and again, since one that was killed behaves when it is back.

    Now and then the chain's last block is replaced by others.
    """
    while True:
        for name in callers.system.simulators:
            _count(callers, name, await callers.company_once(name, "PUT", "/behaviour", {"faults": FAULTS}))
        if random.random() < _REORGANIZED_SHARE:
            done = await callers.company_once("chain", "POST", "/development/reorganizations", {"forget": False})
            callers.counts[REORGANIZATIONS] += done is not None
        await asyncio.sleep(_TOLD_AGAIN_S)


async def behave(callers: Callers) -> None:
    """Have everything go well from now on."""
    for name in callers.system.simulators:
        _count(callers, name, await callers.company(name, "PUT", "/behaviour", {"faults": []}))


def _count(callers: Callers, name: str, told: dict[str, Any] | None) -> None:
    """Count the calls that faults have struck since they were told last. Those just before a kill nobody counts."""
    for kind, times in (told or {"struck": {}})["struck"].items():
        callers.counts[f"{name} {kind}"] += times
