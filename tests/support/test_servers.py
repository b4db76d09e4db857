"""The tests' own servers do what fault tests rely on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support import gunicorn
from tests.support.gunicorn import GunicornServer
from tests.support.need import need
from tests.support.postgres import SCRAM, MakeServer, PostgresServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return [b"data: served\\n\\n"]
"""


@pytest.fixture
def own_postgres(make_server: MakeServer) -> PostgresServer:
    return make_server()


def test_a_database_is_fresh_and_utf8(fresh_database_url: str) -> None:
    with psycopg.connect(fresh_database_url) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_databases_of_another_encoding(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.create_database("ascii", encoding="SQL_ASCII", template="template0")) as connection:
        assert connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    postgres.drop_database("ascii")


def test_a_killed_server_comes_back_on_its_port(own_postgres: PostgresServer) -> None:
    with own_postgres as server:
        port, url = server.port, server.url()
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept (n int)")
        sessions = [server.connect() for _ in range(3)]
        family = psutil.Process(server.pid).children(recursive=True)
        server.kill()
        eventually(lambda: not [process for process in family if process.is_running()])
        for session in sessions:
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        start_in_a_thread(server)
        assert (server.port, server.url()) == (port, url)
        with server.connect() as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def start_in_a_thread(server: PostgresServer) -> None:
    """A server outlives the thread that started it."""
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()


def test_a_frozen_server_is_removed_all_the_same(own_postgres: PostgresServer) -> None:
    own_postgres.start()
    process, data = psutil.Process(own_postgres.pid), own_postgres.data_directory
    process.suspend()
    own_postgres.close()
    own_postgres.close()
    assert not process.is_running()
    assert not data.exists()


def test_restarts_and_settings(own_postgres: PostgresServer) -> None:
    with own_postgres as server:
        server.settings["work_mem"] = "7MB"
        first = server.pid
        server.restart("immediate")
        assert server.pid != first
        with server.connect() as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_a_server_that_asks_for_the_password(own_postgres: PostgresServer) -> None:
    own_postgres.hba = SCRAM
    with own_postgres as server:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(password="wrong"))
        server.connect().close()


def test_gunicorn_serves_and_leaves(tmp_path: Path) -> None:
    need(gunicorn.missing_reason() is None, str(gunicorn.missing_reason()))
    (tmp_path / "served_for_tests.py").write_text(APP)
    with GunicornServer("served_for_tests:app", threads=2, workers=2, pythonpath=[tmp_path]) as server:
        with EventSource(server.url + "/") as source:
            assert source.status == 200
            assert source.next_event().data == "served"
            assert source.wait_end() is True
        workers = server.worker_pids()
        assert len(workers) == 2
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert not [pid for pid in workers if psutil.pid_exists(pid)]
        assert "Shutting down: Master" in server.log


def test_gunicorn_that_cannot_start_says_why() -> None:
    need(gunicorn.missing_reason() is None, str(gunicorn.missing_reason()))
    with pytest.raises(AssertionError, match="No module named 'no_such_module'"):
        GunicornServer("no_such_module:app").start()
