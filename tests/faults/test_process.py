"""Processes that end, and clocks that jump: streams end honestly, and what waits goes on."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from pgfanout import REFRESH_EVENT, PostgresHub
from pgfanout.streams import ThreadedStream
from tests.acceptance.conftest import Serve
from tests.conftest import Freeze
from tests.support import wallclock
from tests.support.gunicorn import GunicornServer
from tests.support.need import need
from tests.support.processes import REPOSITORY
from tests.support.sse import EventSource
from tests.support.wait import eventually
from tests.support.wallclock import WallClock

from .conftest import Follow
from .worker import LONG, TENANT, ask, inside, sessions

DAY = 86_400

# The repository comes last on the path, so that an installed pgfanout is preferred to the one that lies there.
RUN_EXITING = """
import runpy, sys
sys.path.remove("")
sys.path.append(sys.argv.pop(1))
runpy.run_module("tests.support.exiting", run_name="__main__", alter_sys=True)
"""


class TestWorker:
    def comes_back(self, server: GunicornServer, follow: Follow) -> bool:
        """As a browser does that is cut off or sent away: at first the old worker may still take the connection."""
        return follow(server, last_event_id="start").next_event(LONG).type == "refresh"

    def test_reload_ends_streams_with_close_and_a_new_worker_serves(
        self, serve: Serve, follow: Follow, tmp_path: Path
    ) -> None:
        module = tmp_path / "reloaded.py"
        module.write_text("from tests.acceptance.apps.plain import app\n")
        settings = ["--reload", "--reload-engine", "poll", "--graceful-timeout", "120"]
        server = serve("reloaded:app", pythonpath=[tmp_path], settings=settings)
        sources = [follow(server) for _ in range(3)]
        (worker,) = server.worker_pids()
        os.utime(module, (time.time() + 10, time.time() + 10))
        for source in sources:
            assert source.events_until(lambda event: event.type == "close", LONG)
            assert source.wait_end(LONG)
        eventually(lambda: server.worker_pids() not in ([], [worker]))
        eventually(lambda: self.comes_back(server, follow))

    def test_a_killed_one_is_replaced_and_its_session_goes(
        self, serve: Serve, follow: Follow, fresh_database_url: str
    ) -> None:
        server = serve()
        sources = [follow(server) for _ in range(3)]
        (session,) = sessions(fresh_database_url)
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGKILL)
        for source in sources:
            assert not source.wait_end(LONG), "killed, it can't have ended the body"
        eventually(lambda: self.comes_back(server, follow))
        eventually(lambda: session not in sessions(fresh_database_url))
        eventually(lambda: len(sessions(fresh_database_url)) == 1)


@pytest.mark.parametrize("way", ["return", "exit", "exception"])
def test_a_hub_that_nobody_closed_does_not_show_when_the_process_ends(way: str, fresh_database_url: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN_EXITING, str(REPOSITORY), way, *arguments]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(process: subprocess.Popen[str]) -> tuple[str, str, int]:
        return *process.communicate(timeout=LONG), process.returncode

    expected = end(start())
    assert expected[0] == "leaving\n"
    processes = [start(fresh_database_url) for _ in range(4)]
    try:
        for process in processes:
            assert end(process) == expected
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    eventually(lambda: not sessions(fresh_database_url))


def wait_for_heartbeat(url: str, pid: int) -> None:
    """Wait until the listener's session, a server process, has executed something more."""
    query = "SELECT state_change FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(url, autocommit=True) as connection:
        last = connection.execute(query, (pid,)).fetchone()
        eventually(lambda: connection.execute(query, (pid,)).fetchone() != last)


class TestClock:
    """The wall clock jumps by a day, forth and back; what waits goes on unmoved."""

    def test_hub_and_stream_go_by_a_clock_that_does_not_jump(
        self, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch, freeze: Freeze
    ) -> None:
        clock, true_time = SimpleNamespace(shift=0), time.time
        monkeypatch.setattr(time, "time", lambda: true_time() + clock.shift)

        with PostgresHub(fresh_database_url, heartbeat=0.1, heartbeat_timeout=3.0) as hub:
            stream = ThreadedStream(hub.subscribe("nothing", TENANT), keepalive=0.1)
            subscription = hub.subscribe("orders", TENANT)
            assert next(stream).startswith(b": open")
            (pid,) = sessions(fresh_database_url)
            for shift in (DAY, 0, -DAY, 0):
                clock.shift = shift
                for _ in range(2):
                    assert next(stream) == b": keepalive\n"
                    wait_for_heartbeat(fresh_database_url, pid)
                with pytest.raises(queue.Empty):
                    subscription.get(timeout=0.1)
                hub.publish("orders", TENANT, "on time")
                assert subscription.get(LONG).json() == "on time"
            assert (hub.stats().reconnects, sessions(fresh_database_url)) == (0, [pid])
            freeze(pid)
            with pytest.raises(queue.Empty):
                subscription.get(timeout=0.5)
            clock.shift = -DAY  # amid the time that the frozen session has for its answer
            assert subscription.get(LONG) is REFRESH_EVENT
            stream.close()

    def wait_for_keepalives(self, source: EventSource, number: int) -> None:
        enough = len(source.comments) + number
        source.wait_for(lambda source: len(source.comments) >= enough, LONG)

    @pytest.mark.skipif(
        sys.version_info < (3, 11),
        reason="Python 3.10 itself waits by the wall clock (https://bugs.python.org/issue41710)",
    )
    def test_a_workers_stream_goes_on(
        self, serve_inside: Serve, follow: Follow, fresh_database_url: str, tmp_path: Path
    ) -> None:
        need(not wallclock.missing_reason(), wallclock.missing_reason())
        clock = WallClock(tmp_path)
        settings = {"PGFANOUT_KEEPALIVE": "0.2", "PGFANOUT_HEARTBEAT": "0.2"}
        server = serve_inside(env={**clock.environment, **settings})
        source = follow(server)
        (pid,) = sessions(fresh_database_url)
        for shift in (DAY, 0, -DAY, 0):
            clock.jump(shift)
            assert abs(inside(server)["clock"] - time.time() - shift) < DAY / 2, "the worker's clock has not jumped"
            self.wait_for_keepalives(source, 3)
            wait_for_heartbeat(fresh_database_url, pid)
            wait_for_heartbeat(fresh_database_url, pid)
            assert ask(server, f"/publish?tenant={TENANT}", "POST")[0] == 204
            assert source.next_event(LONG).type == "message"
        assert inside(server)["reconnects"] == 0
