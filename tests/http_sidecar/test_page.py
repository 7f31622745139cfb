"""The page about the sidecar is true: its commands are run, and its options are there."""

from __future__ import annotations

import asyncio
import re
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from sidecars.main import main
from tests.http_sidecar.inventory import inventory
from tests.http_sidecar.running import ROOT

PAGE = (ROOT / "docs" / "http-sidecar.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: the page's commands cannot be run")
async def test_the_calls_on_the_page_are_answered_as_it_says(tmp_path: Path) -> None:
    (commands,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if text.startswith("curl")]
    (answers,) = [text for text in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if text.startswith("{")]
    async with inventory(tmp_path) as service:
        process = await asyncio.create_subprocess_shell(
            "set -eu\n" + commands.replace("127.0.0.1:7070", service.address), stdout=PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode() == answers


def test_the_options_on_the_page_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert {option for option in named if option not in told} == set()
    assert {"--try-url", "--timeout", "--calls", "--secret-file", "--allow-http"} <= named
