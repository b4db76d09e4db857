"""Developing without a database: a memory hub under `flask run` and under gunicorn."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.gunicorn import GunicornServer
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import REPOSITORY
from tests.support.sse import EventSource
from tests.support.wait import eventually

CONFIG = Path(__file__).parent / "apps" / "gunicorn.conf.py"
LONG = 20.0
MEMORY = {"PGFANOUT_URL": "memory://"}


@pytest.fixture
def flask_run(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """`flask run` with the application: its URL and its log."""
    port = free_port()
    # The repository comes last on the path, as elsewhere: `-c` puts the folder of the process first.
    main = "import sys; sys.path.append(sys.argv.pop(1)); from flask.cli import main; main()"
    command = [sys.executable, "-c", main, str(REPOSITORY), "--app", "tests.acceptance.apps.memory", "run"]
    command += ["--host", LOOPBACK, "--port", str(port)]
    path = tmp_path / "log"
    with open(path, "wb") as log:
        process = processes.spawn(command, log=log, env={**os.environ, **MEMORY}, cwd=tmp_path)
    url = f"http://{LOOPBACK}:{port}"
    try:
        eventually(lambda: urllib.request.urlopen(url, timeout=5).read())
        yield url, path
    finally:
        processes.kill_tree(process)
        processes.reap(process, LONG)


def publish(url: str, word: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/publish/{word}", method="POST"), timeout=LONG):
        pass


def test_flask_run_needs_no_database_and_says_once_that_it_is_alone(flask_run: tuple[str, Path]) -> None:
    url, log = flask_run
    pages = [EventSource(f"{url}/events") for _ in range(3)]
    for word in ("one", "two"):
        publish(url, word)
        assert [page.next_event(LONG).data for page in pages] == [f'"{word}"'] * 3
    for page in pages:
        page.close()
    assert log.read_text().count("events reach the pages of this process alone") == 1


def test_flask_has_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flask", "--app", "tests.acceptance.apps.memory", "pgfanout", "sql", "install"]
    done = subprocess.run(
        command, env={**os.environ, **MEMORY}, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert "CREATE SCHEMA" in done.stdout


def test_several_workers_are_warned_that_they_lose_events() -> None:
    with GunicornServer("tests.acceptance.apps.memory:app", env=MEMORY, workers=2, config=str(CONFIG)) as server:
        page = EventSource(f"{server.url}/events")
        eventually(lambda: "this server has several processes" in server.log)
        page.close()
