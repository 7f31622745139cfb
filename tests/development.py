"""``pincex dev`` as a test runs it: on free ports, with its data in the test's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

ROOT: Final = Path(__file__).parent.parent
PINCEX: Final = str(Path(sys.executable).with_name("pincex"))
_STOP_S: Final = 60.0
_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


class Development:
    """One running ``pincex dev``. ``output`` is what it printed until it was ready."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, output: str) -> None:
        self.process = process
        self.folder = folder
        self.output = output
        configuration = yaml.safe_load((folder / "coordinator.yaml").read_text())
        self.http: str = configuration["server"]["http"]
        self.grpc: str = configuration["server"]["grpc"]
        self.log_dsn: str = configuration["log"]["dsn"]
        self.sidecars: dict[str, str] = {each["name"]: each["address"] for each in configuration["participants"]}

    def stop(self) -> int:
        """Stop it as a Ctrl-C would, and return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(_STOP_S)


def start(folder: Path, *options: str, environment: Mapping[str, str] = _NO_ENVIRONMENT) -> Development:
    """Start it and return when it is ready; AssertionError with all its output when it ends before."""
    process = subprocess.Popen(
        [PINCEX, "dev", "--data", str(folder), "--http-port", "0", "--grpc-port", "0", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ready."):
            return Development(process, folder, "".join(lines))
    process.wait()
    raise AssertionError("".join(lines))


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Return once the condition holds, of other processes, which have no event for us."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@contextmanager
def development(
    folder: Path, *options: str, environment: Mapping[str, str] = _NO_ENVIRONMENT
) -> Generator[Development]:
    """One that is stopped at the end of the block."""
    running = start(folder, *options, environment=environment)
    with running.process:
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.stop()
