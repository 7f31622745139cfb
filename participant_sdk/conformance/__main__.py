"""The kit as ``python -m participant_sdk.conformance``, where only the SDK is; see ``command`` for exit codes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from participant_sdk.conformance.command import (
    ASKED_WITHIN_S,
    HOST,
    Order,
    RefusedError,
    carry_out,
    exit_code_of,
)
from participant_sdk.conformance.kit import Progress
from participant_sdk.conformance.report import Finding


class _Lines(Progress):
    """Writes every finding as it is made."""

    def found(self, finding: Finding) -> None:
        sys.stdout.write(finding.text() + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the kit; return the exit code."""
    options = _parser().parse_args()
    order = Order(
        options.address,
        options.exercise,
        options.restart,
        options.restart_by_hand,
        options.work,
        options.host,
        options.asked_within,
    )
    try:
        report = asyncio.run(carry_out(order, Progress() if options.json else _Lines()))
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write((report.json() if options.json else report.summary()) + "\n")
    return exit_code_of(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m participant_sdk.conformance", description="Check that a participant keeps the protocol's rules."
    )
    parser.add_argument("address", help="where it serves ResourceService, host:port")
    parser.add_argument("exercise", type=Path, nargs="?", help="a JSON file; without it, the example of its name")
    parser.add_argument("--restart", default="", help="a command that kills it with kill -9 and starts it again")
    parser.add_argument("--restart-by-hand", action="store_true", help="ask a person to do that")
    parser.add_argument("--work", default="", help="a command that does one operation under the branch in PINCEX_XID…")
    parser.add_argument("--host", default=HOST, help="where the kit listens for inquiries")
    parser.add_argument(
        "--asked-within", type=float, default=ASKED_WITHIN_S, help="seconds until a doubt is asked about"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
