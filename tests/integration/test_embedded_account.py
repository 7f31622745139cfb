"""Where an unprivileged account can reach a server's files, and where they go when it cannot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from coordinator.embedded.account import Account, open_files, open_place, reachable, server_account

NOBODY = Account("nobody", 65534, 65534)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a server another account")


@pytest.fixture
def folder(server_folder: Path, request: pytest.FixtureRequest) -> Path:
    folder = server_folder / request.node.name
    folder.mkdir(mode=0o711)
    return folder


def test_root_gives_a_server_another_account_and_nobody_else_does() -> None:
    """PostgreSQL refuses to run as root."""
    account = server_account()
    assert (account is not None and account.uid != 0) == (os.geteuid() == 0)


def test_a_closed_folder_above_is_out_of_reach(folder: Path) -> None:
    inner = folder / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not reachable(inner, NOBODY)
    assert reachable(inner, None)
    inner.parent.chmod(0o711)
    assert reachable(inner, NOBODY)


def test_an_owner_passes_by_his_own_right(folder: Path) -> None:
    inner = folder / "own"
    inner.mkdir(mode=0o700)
    assert reachable(inner, Account("own", os.geteuid(), os.getegid()))
    inner.chmod(0o600)
    assert not reachable(inner, Account("own", os.geteuid(), os.getegid()))


def test_ones_own_server_takes_the_place_that_was_asked_for(folder: Path) -> None:
    assert open_place(folder / "a" / "b", None) == (folder / "a" / "b").resolve()


def test_a_place_within_reach_is_made_there_and_shows_nothing(folder: Path) -> None:
    place = open_place(folder / "place", NOBODY)
    assert place == (folder / "place").resolve()
    assert place.stat().st_mode & 0o777 == 0o711


@ROOT_ONLY
def test_files_out_of_reach_are_copied_once(folder: Path) -> None:
    """Copies are made whole before they have their name, so that a killed copy is never used."""
    closed = folder / "closed"
    (closed / "one" / "bin").mkdir(parents=True)
    (closed / "two").mkdir()
    (closed / "one" / "bin" / "server").write_text("server")
    (closed / "two" / "library").write_text("library")
    closed.chmod(0o700)
    copy = open_files(closed, ("one", "two"), NOBODY)
    try:
        assert copy != closed
        assert reachable(copy / "one" / "bin", NOBODY)
        assert (copy / "one" / "bin" / "server").read_text() == "server"
        assert (copy / "two" / "library").read_text() == "library"
        assert open_files(closed, ("one", "two"), NOBODY) == copy
        closed.chmod(0o711)
        assert open_files(closed, ("one", "two"), NOBODY) == closed
    finally:
        shutil.rmtree(copy)
