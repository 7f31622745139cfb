"""What programs of ours choose for gRPC's core: before it is imported, and only what this version of it knows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from participant_sdk.grpc_core import EXPERIMENTS

_ORDER = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_EXPERIMENTS"))

sys.meta_path.insert(0, Watch())
"""
_TALK = """
import asyncio
import participant_sdk.grpc_core
import grpc

async def talk():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
    await server.stop(None)

asyncio.run(talk())
"""


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    return subprocess.run(
        (sys.executable, "-c", program), env={**inherited, **environment}, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    "program",
    [
        "import sidecars.main",
        "import participant_sdk.load.__main__",
        "from coordinator.commands import servers; servers._configuration = exit; servers.run_coordinator()",
    ],
)
def test_a_program_chooses_before_grpc_is_imported(program: str) -> None:
    """Later it would be without effect: gRPC reads its experiments once."""
    assert _run(_ORDER + program).stdout.split() == [EXPERIMENTS]


def test_what_was_set_already_is_kept() -> None:
    """An operator's own choice."""
    assert _run(_ORDER + "import sidecars.main", GRPC_EXPERIMENTS="tcp_frame_size_tuning").stdout.split() == [
        "tcp_frame_size_tuning"
    ]


def test_grpc_knows_what_is_chosen() -> None:
    """It says so where it does not: then another version has come, and the choice is to be measured anew."""
    assert "xperiment" not in _run(_TALK).stderr
    unknown = _run(_TALK, GRPC_EXPERIMENTS="-event_engine_of_old").stderr
    assert "Unknown experiment" in unknown
