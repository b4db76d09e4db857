"""Network namespaces: what is inside, what passes, and that nothing of them is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.support import netns
from tests.support.netns import NetworkNamespace
from tests.support.processes import reap
from tests.support.wait import eventually

LONG = 20.0


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    if reason := netns.missing_reason():
        pytest.skip(reason)
    with NetworkNamespace() as namespace:
        yield namespace


def traces(namespace: NetworkNamespace) -> list[str]:
    """What there is of it: a name, a device, routes."""
    shown = [["ip", "netns"], ["ip", "-brief", "link"], ["ip", "route", "show", "table", "all"]]
    marks = (namespace.name, namespace.name.removeprefix("pgfanout-").replace("-", "x"), namespace.outside)
    text = "\n".join(subprocess.run(command, capture_output=True, text=True).stdout for command in shown)
    return [line for line in text.splitlines() if any(mark in line for mark in marks)]


def pair(namespace: NetworkNamespace) -> tuple[socket.socket, socket.socket]:
    """A connection: its end outside, and the one inside."""
    with namespace.run(lambda: socket.create_server((namespace.inside, 0))) as listener:
        outside = socket.create_connection(listener.getsockname(), timeout=LONG)
        inside, _ = listener.accept()
    inside.settimeout(LONG)
    return outside, inside


def test_bytes_pass_between_inside_and_outside_but_not_while_the_link_is_down(namespace: NetworkNamespace) -> None:
    outside, inside = pair(namespace)
    with outside, inside:
        outside.sendall(b"before")
        assert inside.recv(100) == b"before"
        namespace.down()
        outside.sendall(b"during")
        inside.settimeout(0.5)
        with pytest.raises(TimeoutError):
            inside.recv(100)
        inside.settimeout(LONG)
        namespace.up()
        assert inside.recv(100) == b"during"


def test_an_end_that_closes_while_the_link_is_down_is_not_heard(namespace: NetworkNamespace) -> None:
    outside, inside = pair(namespace)
    with outside:
        namespace.down()
        inside.close()
        outside.settimeout(0.5)
        with pytest.raises(TimeoutError):
            outside.recv(1)


def test_a_thread_that_ran_inside_leaves_the_others_where_they_are(namespace: NetworkNamespace) -> None:
    def addresses() -> str:
        return subprocess.run(["ip", "address"], capture_output=True, text=True).stdout

    inside = namespace.run(addresses)
    assert namespace.inside in inside and namespace.outside not in inside
    assert namespace.outside in addresses()


def test_what_a_function_inside_raises_is_raised(namespace: NetworkNamespace) -> None:
    with pytest.raises(ZeroDivisionError):
        namespace.run(lambda: 1 // 0)


def test_a_process_can_be_started_inside(namespace: NetworkNamespace) -> None:
    program = f"import socket; print(socket.create_server(({namespace.inside!r}, 0)).getsockname()[0])"
    with tempfile.TemporaryFile() as log:
        process = namespace.spawn([sys.executable, "-c", program], log=log)
        assert reap(process, LONG) == 0
        log.seek(0)
        assert log.read().decode().strip() == namespace.inside


def test_nothing_is_left_of_it_also_when_a_socket_inside_is_still_open(namespace: NetworkNamespace) -> None:
    assert len(traces(namespace)) >= 3
    with namespace.run(socket.socket):
        namespace.close()
        eventually(lambda: not traces(namespace))
    namespace.close()


def test_what_was_made_is_removed_when_the_rest_fails(
    namespace: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = NetworkNamespace()

    def fail() -> None:
        raise OSError("no")

    monkeypatch.setattr(second, "up", fail)
    with pytest.raises(OSError, match="no"), second:
        pass
    assert traces(second) == []


def test_several_have_names_and_addresses_of_their_own(namespace: NetworkNamespace) -> None:
    with NetworkNamespace() as second:
        assert second.name != namespace.name and str(os.getpid()) in second.name
        assert {second.inside, second.outside}.isdisjoint({namespace.inside, namespace.outside})
