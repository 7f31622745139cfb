"""Ports that were asked for stay ours: the kernel gives them to no outgoing connection, and servers listen on them."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import grpc
import pytest

from coordinator.dev import DevError, DevOptions, _ports  # pyright: ignore[reportPrivateUsage]
from coordinator.embedded.process import hold_port, port_is_free
from participant_sdk.grpc_options import SERVER_OPTIONS

# linux/in.h, since Linux 6.3: from which ports the kernel takes one for this socket, the highest in the upper half.
_IP_LOCAL_PORT_RANGE: Final = 51


@pytest.fixture
def port() -> Iterator[int]:
    """The first of a row of free ports, of those that the kernel takes for outgoing connections."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first: int = found.getsockname()[1]
        first -= random.randrange(50)
        if all(port_is_free(first + each) for each in range(40)):
            yield first
            return


def _can_be_taken(port: int) -> bool:
    """Whether the kernel gives it to an outgoing connection that may have this one only."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        try:
            client.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
        except OSError:
            pytest.skip("the kernel cannot be asked for one port")
        try:
            client.connect(server.getsockname())
        except OSError as error:
            assert error.errno == errno.EADDRNOTAVAIL
            return False
        return True


def test_what_is_held_is_given_to_no_outgoing_connection_until_it_is_let_go(port: int) -> None:
    assert _can_be_taken(port)
    with hold_port(port):
        assert not _can_be_taken(port)


def test_a_server_listens_on_what_is_held_and_is_in_the_way_of_another(port: int) -> None:
    with hold_port(port):
        server = grpc.server(ThreadPoolExecutor(1), options=SERVER_OPTIONS)
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
        server.start()
        with pytest.raises(OSError, match="in use"):
            hold_port(port)
        server.stop(None).wait()
        assert port_is_free(port)


def test_the_development_system_holds_every_port_that_it_was_asked_for(port: int) -> None:
    with ExitStack() as stack:
        http, grpc_port, sidecars, simulators = _ports(DevOptions(http_port=port, grpc_port=port + 1), stack)
        wanted = [http, grpc_port, *sidecars.values(), *simulators.values()]
        assert wanted[:3] == [port, port + 1, port + 11]
        assert not any(_can_be_taken(each) for each in wanted)
    with (
        socket.create_server(("127.0.0.1", port + 12)),
        ExitStack() as stack,
        pytest.raises(DevError, match=f"port {port + 12} is in use"),
    ):
        _ports(DevOptions(http_port=port, grpc_port=port + 1), stack)
