"""An order as the program's arguments say it, read and written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from participant_sdk.client_results import Wait
from participant_sdk.load.order import MIXED, TRANSFER, WORKLOADS, InvalidOrderError, Order, new_run, participants_of


@dataclass(frozen=True, slots=True)
class Options:
    """What the program was told. ``progress``: a line each second."""

    order: Order
    progress: bool = False

    def written(self) -> list[str]:
        """The arguments that say it."""
        order = self.order
        switches = {
            "--decided": order.wait is Wait.DECIDED,
            "--unary": order.unary,
            "--follow-money": order.follow_money,
            "--progress": self.progress,
        }
        return [
            f"--coordinators={','.join(order.coordinators)}",
            f"--workload={order.workload}",
            f"--participants={','.join(order.participants)}",
            f"--accounts={order.accounts}",
            f"--hot-spot={order.hot_spot}",
            f"--currency={order.currency}",
            f"--rate={order.rate_per_s!r}",
            f"--in-flight={order.in_flight}",
            f"--seconds={order.seconds!r}",
            f"--warm-up={order.warm_up_s!r}",
            f"--seed={order.seed}",
            f"--run={order.run}",
            f"--transfers={order.transfers}",
            *[switch for switch, is_on in switches.items() if is_on],
        ]


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Read them, the process's own if none are given; tell what is wrong and end the process otherwise."""
    parser = _parser()
    told = parser.parse_args(arguments)
    try:
        return Options(_order(told), progress=told.progress)
    except InvalidOrderError as error:
        parser.error(str(error))


def _order(told: argparse.Namespace) -> Order:
    unnamed = participants_of(MIXED) if told.workload == MIXED else dict.fromkeys((told.debited, told.credited))
    return Order(
        coordinators=tuple(told.coordinators.split(",")),
        workload=told.workload,
        participants=tuple(told.participants.split(",") if told.participants else unnamed),
        accounts=told.accounts,
        hot_spot=told.hot_spot,
        currency=told.currency,
        rate_per_s=told.rate,
        in_flight=told.in_flight,
        seconds=told.seconds,
        warm_up_s=told.warm_up,
        wait=Wait.DECIDED if told.decided else Wait.APPLIED,
        unary=told.unary,
        follow_money=told.follow_money,
        seed=told.seed,
        run=told.run,
        transfers=told.transfers,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m participant_sdk.load", description="Load coordinators.")
    parser.add_argument("--coordinators", required=True, help="host:port of one or more, separated by commas")
    parser.add_argument("--workload", default=TRANSFER, help=f"one of {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--participants", default="", help="separated by commas; of bookkeepers the first one pays; mixed: the five"
    )
    parser.add_argument("--debited", default="bookkeeper", help="the participant whose accounts are debited, of two")
    parser.add_argument("--credited", default="bookkeeper", help="the participant whose accounts are credited, of two")
    parser.add_argument("--accounts", type=int, required=True, help="so many at each participant; customers, in all")
    parser.add_argument("--hot-spot", type=int, default=0, help="customers that are picked nine times of ten")
    parser.add_argument("--currency", default="USD", help="of the accounts")
    parser.add_argument("--rate", type=float, default=0.0, help="an open loop: so many a second, at random moments")
    parser.add_argument(
        "--in-flight", "--concurrency", type=int, default=0, help="callers of a closed loop; the cap of an open one"
    )
    parser.add_argument("--seconds", "--duration", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds")
    parser.add_argument("--decided", action="store_true", help="answers as soon as the decision is durable")
    parser.add_argument("--unary", action="store_true", help="Execute calls instead of one ExecuteStream")
    parser.add_argument("--follow-money", action="store_true", help="tells what came into the ledgers, too")
    parser.add_argument("--progress", action="store_true", help="a line each second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", default=new_run(), help="mixed: in the names of what is recorded once; else a new one")
    parser.add_argument(
        "--transfers", type=int, default=0, help="mixed: how many transfers RUN-0, RUN-1… the bank has told of"
    )
    return parser
