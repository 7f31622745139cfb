"""Hundreds of lines of one kind at once are ten, and how many more there were."""

from __future__ import annotations

import asyncio
import io
import json

from coordinator.bursts import SUM_UP_EVERY_S, TOLD_MAX
from coordinator.telemetry import Telemetry

MANY = 300


class Stream(io.StringIO):
    """Where lines go, and whoever waits for one hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str, /) -> int:
        self.written.set()
        return super().write(text)


def lines(stream: Stream) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def until_summed_up(stream: Stream) -> dict[str, object]:
    """The next line, which says how many were left out."""
    stream.written.clear()
    async with asyncio.timeout(10 * SUM_UP_EVERY_S):
        await stream.written.wait()
    return lines(stream)[-1]


async def test_what_needs_attention_all_at_once_is_told_by_number() -> None:
    stream = Stream()
    telemetry = Telemetry("info", stream)
    for _ in range(MANY):
        telemetry.logger.error("transaction_needs_attention", transaction_id="x", attempts=3)
    assert len(lines(stream)) == TOLD_MAX
    last = await until_summed_up(stream)
    assert (last["message"], last["level"], last["more"]) == ("transaction_needs_attention", "error", MANY - TOLD_MAX)
    assert len(lines(stream)) == TOLD_MAX + 1


async def test_every_heuristic_end_has_a_line_and_few_of_a_burst_are_errors() -> None:
    stream = Stream()
    telemetry = Telemetry("info", stream)
    for number in range(MANY):
        telemetry.logger.error("heuristic_outcome", transaction_id=str(number))
    told = lines(stream)
    assert [line["transaction_id"] for line in told] == [str(number) for number in range(MANY)]
    assert [line["level"] for line in told] == ["error"] * TOLD_MAX + ["info"] * (MANY - TOLD_MAX)
    assert (await until_summed_up(stream))["more"] == MANY - TOLD_MAX


async def test_demoted_lines_are_left_out_where_information_is() -> None:
    stream = Stream()
    telemetry = Telemetry("error", stream)
    for _ in range(MANY):
        telemetry.logger.error("heuristic_outcome")
    assert len(lines(stream)) == TOLD_MAX
    assert (await until_summed_up(stream))["more"] == MANY - TOLD_MAX


async def test_a_burst_that_goes_on_is_one_line_a_second() -> None:
    stream = Stream()
    telemetry = Telemetry("info", stream)
    for _ in range(TOLD_MAX + 1):
        telemetry.logger.error("transaction_needs_attention")
    assert (await until_summed_up(stream))["more"] == 1
    for _ in range(MANY):
        telemetry.logger.error("transaction_needs_attention")
    assert (await until_summed_up(stream))["more"] == MANY
    assert len(lines(stream)) == TOLD_MAX + 2


async def test_other_events_are_never_left_out() -> None:
    stream = Stream()
    telemetry = Telemetry("info", stream)
    for _ in range(MANY):
        telemetry.logger.error("branch_forced")
    assert len(lines(stream)) == MANY
