"""The kit as a command: an address and an exercise in; a report out, and 0 or 1 as the exit code."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from participant_sdk.conformance import read_exercise, run


def main() -> int:
    """Run the kit. The exit code is 0 where every check passed, 1 where one did not."""
    parser = argparse.ArgumentParser(description="Check that a participant keeps the protocol's rules.")
    parser.add_argument("address", help="where it serves ResourceService, host:port")
    parser.add_argument("exercise", type=Path, help="a JSON file; see participant_sdk/conformance/exercise.py")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments.address, read_exercise(arguments.exercise.read_text())))
    sys.stdout.write(report.text() + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
