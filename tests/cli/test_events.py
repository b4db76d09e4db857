"""`pgfanout listen` and `pgfanout publish`, and which hub they use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import flask
import pytest

import pgfanout
from pgfanout import PostgresHub
from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.cli import main
from pgfanout.flask import PgFanout
from pgfanout.settings import Settings

from ..support.need import need
from ..support.ports import LOOPBACK, free_port
from .conftest import Capture, command, failed, printed, refused

LONG = 20.0
SECRET = "s3cr3t"
TENANT = "11111111-1111-4111-8111-111111111111"
WHOSE = ["--tenant", TENANT]


@contextmanager
def listening(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`pgfanout listen` in a process of its own, which listens already."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfanout", "listen", *arguments],
        cwd=Path(pgfanout.__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "listening\n"
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


@pytest.fixture(params=[False, True], ids=["plain", "history"])
def url(request: pytest.FixtureRequest, fresh_database_url: str) -> str:
    """A database without history, and one with it."""
    if request.param:
        assert main(["sql", "install", "--apply", "--url", fresh_database_url]) == 0
    return fresh_database_url


def test_what_is_published_is_listened_to(url: str, capsys: Capture) -> None:
    with listening("orders", "stock", *WHOSE, "--url", url, "--count", "2") as process:
        publish = ["publish", *WHOSE, "--url", url]
        assert printed(capsys, *publish, "--type", "order.created", "orders", '{"id": 42, "name": "ä"}') == ""
        assert printed(capsys, *publish, "stock", " [1,\n2] ") == ""
        first, second = lines(process, 2)
        assert process.wait(LONG) == 0
    assert first.pop("id") != second.pop("id")
    assert first == {"channel": "orders", "type": "order.created", "payload": {"id": 42, "name": "ä"}}
    assert second == {"channel": "stock", "type": "", "payload": [1, 2]}


def test_an_application_without_tenants_needs_no_tenant(url: str, capsys: Capture) -> None:
    with listening("orders", "--url", url, "--count", "1") as process:
        printed(capsys, "publish", "orders", "1", "--url", url)
        assert lines(process, 1)[0]["payload"] == 1


def test_several_tenants_may_be_listened_to(url: str, capsys: Capture) -> None:
    with listening("orders", "--tenant", "7", "--tenant", "shop", "--url", url) as process:
        for tenant in ("8", "7", "shop"):
            printed(capsys, "publish", "orders", f'"{tenant}"', "--tenant", tenant, "--url", url)
        assert [line["payload"] for line in lines(process, 2)] == ["7", "shop"]


def test_an_applications_hub_gets_what_the_command_publishes(url: str) -> None:
    with PostgresHub(url, history=True) as hub:
        hub.install_history()
        with hub.subscribe("orders", TENANT) as subscription:
            assert main(["publish", *WHOSE, "--url", url, "orders", "1"]) == 0
            assert subscription.get(LONG).json() == 1
        assert hub.stats().unlogged == 0


def test_the_payload_may_come_from_standard_input(fresh_database_url: str) -> None:
    with PostgresHub(fresh_database_url) as hub, hub.subscribe("orders", TENANT) as subscription:
        done = subprocess.run(
            [sys.executable, "-m", "pgfanout", "publish", *WHOSE, "orders", "-"],
            cwd=Path(pgfanout.__file__).parents[1],
            env={**os.environ, "PGFANOUT_URL": fresh_database_url},
            input='"from a pipe"\n',
            text=True,
            check=True,
            timeout=60,
        )
        assert done.returncode == 0
        assert subscription.get(LONG).json() == "from a pipe"


def test_another_postgres_channel_is_another_world(fresh_database_url: str) -> None:
    options = [*WHOSE, "--url", fresh_database_url, "--postgres-channel", "others"]
    with PostgresHub(fresh_database_url, postgres_channel="others") as hub:
        with hub.subscribe("orders", TENANT) as subscription:
            assert main(["publish", *options, "orders", "1"]) == 0
            assert subscription.get(LONG).json() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_traceback(fresh_database_url: str, number: int) -> None:
    with listening("orders", *WHOSE, "--url", fresh_database_url) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (130 if number == signal.SIGINT else -number, "")


def test_a_reader_that_has_left_ends_it_without_a_traceback(fresh_database_url: str, capsys: Capture) -> None:
    with listening("orders", *WHOSE, "--url", fresh_database_url) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        printed(capsys, "publish", *WHOSE, "--url", fresh_database_url, "orders", "1")
        assert process.wait(LONG) == 1
        assert process.stderr.read() == ""


MEANINGLESS = [
    (["listen"], "CHANNEL"),
    (["publish", "orders"], "JSON"),
    (["publish", "orders", "1"], "give --url"),
    (["publish", "orders", "1", "--url", "memory://"], "one process alone"),
    (["listen", "orders", "--url", "mysql://localhost/x"], "connection string"),
    (["listen", "orders", "--count", "many", "--url", "postgresql://localhost/x"], "--count"),
    (["sql", "status"], "give --url"),
    (["sql", "prune", "--schema", "No Good"], "schema"),
]


@pytest.mark.parametrize(("arguments", "words"), MEANINGLESS)
def test_what_makes_no_sense_is_one_line_and_status_2(arguments: list[str], words: str, capsys: Capture) -> None:
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["", "1", *WHOSE], "invalid channel"),
        (["orders", f"not JSON {SECRET}", *WHOSE], "invalid payload"),
        (["orders", "1", *WHOSE, "--type", "close"], "invalid type"),
    ],
)
def test_what_is_no_event_is_one_line_and_status_2(
    fresh_database_url: str, arguments: list[str], words: str, capsys: Capture
) -> None:
    line = refused(capsys, "publish", "--url", fresh_database_url, *arguments)
    assert words in line and SECRET not in line


@pytest.mark.parametrize("arguments", [["listen", "orders"], ["publish", "orders", "1"], ["sql", "status"]])
def test_a_server_that_can_not_be_reached_is_one_line_and_status_1(arguments: list[str], capsys: Capture) -> None:
    url = f"postgresql://app:{SECRET}@{LOOPBACK}:{free_port()}/shop"
    whose = [] if arguments[0] == "sql" else WHOSE
    assert SECRET not in failed(capsys, *arguments, *whose, "--url", url)


def test_a_hub_that_can_not_listen_is_one_line_and_status_1(url: str, capsys: Capture) -> None:
    missing = Settings({"URL": url, "HISTORY": True, "HISTORY_SCHEMA": "elsewhere"})
    assert main(["listen", "orders", *WHOSE], settings=missing, prog="manage.py pgfanout") == 1
    line = capsys.readouterr().err
    assert line.startswith("manage.py pgfanout: ") and "elsewhere" in line and line.count("\n") == 1


# For an application.


def test_an_applications_settings_are_used_and_options_go_before_them(url: str) -> None:
    elsewhere = f"postgresql://{LOOPBACK}:{free_port()}/elsewhere"
    settings = Settings({"URL": elsewhere, "POSTGRES_CHANNEL": "others"})
    with PostgresHub(url, postgres_channel="others") as hub, hub.subscribe("orders", TENANT) as subscription:
        assert main(["publish", *WHOSE, "orders", "1", "--url", url], settings=settings) == 0
        assert subscription.get(LONG).json() == 1


def test_install_takes_what_an_application_has_set_and_options_go_before_that(capsys: Capture) -> None:
    settings = Settings({"POSTGRES_CHANNEL": "live", "HISTORY_MAX_ROWS": 7, "HISTORY_MAX_PAYLOAD": 999})
    schema = Schema(postgres_channel="live", max_rows=8, max_payload=999)
    assert printed(capsys, "sql", "install", "--max-rows", "8", settings=settings) == schema.script()


def test_flask_has_the_same_command(fresh_database_url: str) -> None:
    app = flask.Flask("shop")
    app.config.update(PGFANOUT_URL=fresh_database_url, PGFANOUT_HISTORY=True, PGFANOUT_HISTORY_SCHEMA="live")
    fanout = PgFanout(app)
    run = app.test_cli_runner().invoke
    done = run(args=["pgfanout", "sql", "install", "--apply"])
    assert (done.exit_code, done.output) == (0, "")
    with fanout.hub, fanout.hub.subscribe("orders", TENANT) as subscription:
        assert run(args=["pgfanout", "publish", *WHOSE, "orders", "1"]).exit_code == 0
        assert subscription.get(LONG).json() == 1
    assert "schema      live, version" in run(args=["pgfanout", "sql", "status"]).output


def test_flask_shows_the_commands_own_help_and_errors() -> None:
    app = flask.Flask("shop")
    app.config["PGFANOUT_URL"] = f"postgresql://app:{SECRET}@{LOOPBACK}:{free_port()}/shop"
    PgFanout(app)
    run = app.test_cli_runner().invoke
    shown = run(args=["pgfanout", "publish", "--help"])
    assert (shown.exit_code, shown.output.startswith("usage: flask pgfanout publish")) == (0, True)
    wrong = run(args=["pgfanout", "sql", "destroy"])
    assert wrong.exit_code == 2 and wrong.output.startswith("flask pgfanout sql: ")
    away = run(args=["pgfanout", "sql", "status"])
    assert away.exit_code == 1 and SECRET not in away.output


def test_the_script_is_installed_under_its_name() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="pgfanout")
    need(scripts, "pgfanout runs from its folder and is not installed")
    assert {script.load() for script in scripts} == {main}


def test_help_is_there_for_every_command(capsys: Capture) -> None:
    of_sql = [["sql", name] for name in ("install", "status", "trigger", "prune", "uninstall")]
    for words in ([], ["listen"], ["publish"], ["sql"], *of_sql):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {' '.join(['pgfanout', *words])}")


def test_the_module_says_how_it_was_called() -> None:
    assert command("--help").stdout.startswith("usage: python -m pgfanout ")
