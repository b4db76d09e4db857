"""The Django example: its own tests, and its page in a browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support.gunicorn import GunicornServer
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY

EXAMPLE = REPOSITORY / "docs" / "examples" / "django_board"


@pytest.fixture
def environment(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """An environment in which the example has its server, and a database with the example's name."""
    url = urlsplit(postgres.create_database("board"))
    yield {
        "PGHOST": str(url.hostname),
        "PGPORT": str(url.port),
        "PGUSER": str(url.username),
        "PGPASSWORD": str(url.password),
        "PYTHONPATH": f"{EXAMPLE}:{REPOSITORY}",
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    postgres.drop_database("board")


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run a command of the example, and return what it has printed."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command,
        cwd=EXAMPLE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "board/models.py",
        "board/views.py",
        "board/urls.py",
        "board/templates/board.html",
        "board/tests.py",
        "gunicorn.conf.py",
    ],
)
def test_the_docs_show_its_files(name: str) -> None:
    assert (EXAMPLE / name).read_text() in (REPOSITORY / "docs" / "django.md").read_text()


def test_its_own_tests_pass_and_drop_their_database(environment: dict[str, str], postgres: PostgresServer) -> None:
    said = manage(environment, "test", "--verbosity", "2")
    assert "OK" in said
    assert "Destroying test database" in said
    with postgres.connect() as connection:
        assert connection.execute("SELECT FROM pg_database WHERE datname LIKE 'test_board%'").fetchall() == []


def test_its_migrations_are_complete_and_can_be_shown_and_reversed(environment: dict[str, str]) -> None:
    manage(environment, "makemigrations", "--check", "--dry-run")
    manage(environment, "check", "--fail-level", "WARNING")
    assert "CREATE SCHEMA pgfanout" in manage(environment, "sqlmigrate", "board", "0001")
    manage(environment, "migrate")
    assert "pgfanout_events" in manage(environment, "pgfanout", "sql", "status")
    manage(environment, "migrate", "board", "zero")
    assert "DROP SCHEMA" in manage(environment, "sqlmigrate", "--backwards", "board", "0001")


def test_an_order_appears_in_each_window_of_its_shop(environment: dict[str, str], page: Page) -> None:
    manage(environment, "migrate")
    server = GunicornServer(
        "board.wsgi:application",
        config=EXAMPLE / "gunicorn.conf.py",
        threads=None,
        worker_class=None,
        env=environment,
        pythonpath=[EXAMPLE],
    )
    with server:
        loads: list[str] = []
        page.on("request", lambda request: loads.append(request.url) if request.url.endswith("/orders") else None)
        page.goto(f"{server.url}/shops/7/")
        second, other = page.context.new_page(), page.context.new_page()
        second.goto(f"{server.url}/shops/7/")
        other.goto(f"{server.url}/shops/8/")
        for shop, title in ((other, "coffee"), (second, "tea"), (second, "milk")):
            shop.fill("input[name=title]", title)
            shop.click("button")
        expect(page.locator("li")).to_have_text(["tea", "milk"])
        expect(second.locator("li")).to_have_text(["tea", "milk"])
        expect(other.locator("li")).to_have_text(["coffee"])
        assert loads == []  # the page came with its state, and followed from there
