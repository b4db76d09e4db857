"""Writes that hold the interpreter do what `os.write` does."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pgfanout.streams.detached import held

from ...support.detached import BUFFER, PATIENCE, read_exactly, reset, tcp_pair
from ...support.wait import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="streams leave their threads on Linux alone")


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends, of which the first does not block."""
    server, client = tcp_pair(BUFFER)
    server.setblocking(False)
    with server, client:
        yield server, client


@pytest.fixture
def without_forced_switches() -> Iterator[None]:
    """A thread keeps the interpreter until it gives it up; nor does a finaliser give it up meanwhile."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    gc.disable()
    yield
    gc.enable()
    sys.setswitchinterval(before)


def test_there_is_one_here() -> None:
    assert held.write is not os.write


def test_no_other_thread_runs_meanwhile(without_forced_switches: None) -> None:
    """While `os.write` lets them."""
    stop, turns = threading.Event(), [0]

    def count() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # gives the interpreter up, which nobody else is made to do

    thread = threading.Thread(target=count, daemon=True)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        thread.start()
        before = turns[0]
        for _ in range(10_000):
            held.write(null, b"x")
        assert turns[0] == before
        deadline = time.monotonic() + PATIENCE
        while turns[0] == before and time.monotonic() < deadline:
            os.write(null, b"x")
        assert turns[0] > before
    finally:
        stop.set()
        thread.join(PATIENCE)
        os.close(null)


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff\x00", os.urandom(5000)])
def test_the_bytes_arrive(connection: tuple[socket.socket, socket.socket], data: bytes) -> None:
    server, client = connection
    assert held.write(server.fileno(), data) == len(data)
    assert read_exactly(client, len(data)) == data


def write_for_ever(descriptor: int, data: bytes) -> None:
    while True:
        held.write(descriptor, data)


def test_what_does_not_fit_is_not_written(connection: tuple[socket.socket, socket.socket]) -> None:
    server, _ = connection
    data = bytes(100 * BUFFER)
    assert 0 < held.write(server.fileno(), data) < len(data)
    with pytest.raises(BlockingIOError):
        write_for_ever(server.fileno(), data)


def test_a_client_that_has_reset_is_an_error(connection: tuple[socket.socket, socket.socket]) -> None:
    server, client = connection
    reset(client)
    errors: list[OSError] = []

    def fails() -> bool:
        try:
            held.write(server.fileno(), b"x")
        except OSError as error:
            errors.append(error)
        return bool(errors)

    eventually(fails)
    assert isinstance(errors[0], (ConnectionResetError, BrokenPipeError))


def test_a_descriptor_that_is_none_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        held.write(-1, b"x")
