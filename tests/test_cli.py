"""The command line: what it prints, what it applies, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import pgfanout
from pgfanout import PostgresHub
from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.backends.postgres.history.script import ScriptError, run_script
from pgfanout.backends.postgres.history.trigger import TableTrigger
from pgfanout.cli import main

from .support.ports import LOOPBACK, free_port
from .support.postgres import SCRAM, MakeServer, PostgresServer, random_name

SECRET = "s3cr3t"
TENANT = "11111111-1111-4111-8111-111111111111"
TRIGGER = ["sql", "trigger", "orders", "--tenant", "tenant_id", "--key", "id"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGFANOUT_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "pgfanout", *arguments],
        cwd=Path(pgfanout.__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def printed(capture: Capture, *arguments: str) -> str:
    """What a command that succeeds prints."""
    assert main(arguments) == 0
    shown = capture.readouterr()
    assert shown.err == ""
    return shown.out


def refused(capture: Capture, *arguments: str) -> str:
    """The one line of a command that makes no sense."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return one_line(capture)


def failed(capture: Capture, *arguments: str) -> str:
    """The one line of a command that the server refuses."""
    assert main(arguments) == 1
    return one_line(capture)


def one_line(capture: Capture) -> str:
    shown = capture.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("python -m pgfanout") and shown.err.endswith("\n") and shown.err.count("\n") == 1
    return shown.err


def test_install_prints_the_script() -> None:
    done = command("sql", "install")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == Schema().script()


def test_every_option_of_install_reaches_the_script(capsys: Capture) -> None:
    options = ["--schema", "live", "--postgres-channel", "live events", "--max-age", "3600.5", "--max-rows", "7"]
    options += ["--max-payload", "999", "--publisher", "web", "--publisher", "Other Role", "--reader", "hub"]
    schema = Schema("live", "live events", 3600.5, 7, 999)
    assert printed(capsys, "sql", "install", *options) == schema.script(["web", "Other Role"], ["hub"])


def test_trigger_prints_the_script() -> None:
    done = command("sql", "trigger", "Größen", "--tenant", "t")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == TableTrigger("Größen", "t").script()


def test_every_option_of_trigger_reaches_the_script(capsys: Capture) -> None:
    options = ["--tenant", "Tenant Id", "--key", "Order No, line", "--channel", "c", "--columns", "a,b"]
    options += ["--payload", "p", "--when", "a > 0", "--schema", "live"]
    trigger = TableTrigger(
        "shop.Order Items", "Tenant Id", ("Order No", "line"), "c", ("a", "b"), ("p",), "a > 0", "live"
    )
    assert printed(capsys, "sql", "trigger", "shop.Order Items", *options) == trigger.script()


def test_dropping_needs_the_tables_name_only(capsys: Capture) -> None:
    drop = TableTrigger("orders", "tenant_id", ("id",)).drop_script()
    assert printed(capsys, "sql", "trigger", "orders", "--drop") == drop
    assert printed(capsys, *TRIGGER, "--drop") == drop


def test_what_is_printed_does_what_is_applied(capsys: Capture, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid)")
    for script in (printed(capsys, "sql", "install"), printed(capsys, *TRIGGER)):
        psycopg.Cursor(connection).execute(script.encode())
    connection.execute("INSERT INTO orders VALUES (1, %s)", [TENANT])
    assert connection.execute("SELECT channel, type FROM pgfanout.event").fetchall() == [("orders", "insert")]


@pytest.mark.parametrize("variable", ["PGFANOUT_DATABASE_URL", "DATABASE_URL"])
def test_the_url_may_be_in_the_environment(
    fresh_database_url: str, connection: psycopg.Connection, variable: str
) -> None:
    done = command("sql", "install", "--apply", **{variable: fresh_database_url})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert connection.execute("SELECT postgres_channel FROM pgfanout.log").fetchone() == ("pgfanout_events",)


def test_the_option_goes_before_the_environment_and_the_own_variable_before_the_common_one(
    fresh_database_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    nowhere = f"postgresql://{LOOPBACK}:{free_port()}/nowhere"
    monkeypatch.setenv("DATABASE_URL", nowhere)
    monkeypatch.setenv("PGFANOUT_DATABASE_URL", fresh_database_url)
    assert printed(capsys, "sql", "install", "--apply") == ""
    monkeypatch.setenv("PGFANOUT_DATABASE_URL", nowhere)
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid)")
    assert printed(capsys, *TRIGGER, "--apply", "--database-url", fresh_database_url) == ""
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass"
    assert connection.execute(triggers).fetchone() == (4,)
    assert printed(capsys, *TRIGGER, "--drop", "--apply", "--database-url", fresh_database_url) == ""
    assert connection.execute(triggers).fetchone() == (0,)


def test_install_changes_the_settings_of_a_log_that_is_there(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    apply = ["sql", "install", "--apply", "--database-url", fresh_database_url]
    for options in ([], ["--max-rows", "7"], ["--max-age", "60"]):
        printed(capsys, *apply, *options)
    PostgresHub(fresh_database_url, history=True).install_history()
    kept = "SELECT max_rows, max_age::text, max_payload FROM pgfanout.log"
    assert connection.execute(kept.encode()).fetchone() == (7, "00:01:00", 1_048_576)


def test_roles_get_their_rights(
    fresh_database_url: str, postgres: PostgresServer, connection: psycopg.Connection, capsys: Capture
) -> None:
    name = random_name("Role")
    role = sql.Identifier(name)
    connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        printed(capsys, "sql", "install", "--apply", "--database-url", fresh_database_url, "--publisher", name)
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        connection.execute("SELECT pgfanout.publish('orders', %s, 'null')", [TENANT])
    finally:
        connection.execute("RESET ROLE")
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


MEANINGLESS = [
    ([], "COMMAND"),
    (["sql"], "COMMAND"),
    (["sql", "destroy"], "destroy"),
    (["sql", "install", "--max-age", "soon"], "--max-age"),
    (["sql", "install", "--max-age", "nan"], "age"),
    (["sql", "install", "--max-rows", "0"], "max_rows"),
    (["sql", "install", "--schema", "No Good"], "schema"),
    (["sql", "install", "--postgres-channel", ""], "channel"),
    (["sql", "install", "--max-payload", "0"], "payload"),
    (["sql", "install", "--app"], "--app"),
    (["sql", "install", "--apply"], "PGFANOUT_DATABASE_URL"),
    (["sql", "trigger"], "TABLE"),
    (["sql", "trigger", "orders"], "needs --tenant"),
    (["sql", "trigger", "orders", "--tenant", "t", "--key", "id,"], "column needs a name"),
    (["sql", "trigger", "", "--drop"], "table needs a name"),
    ([*TRIGGER, "--channel", "x" * 64], "64 bytes"),
    ([*TRIGGER, "--columns", ""], "column needs a name"),
]


@pytest.mark.parametrize(("arguments", "words"), MEANINGLESS)
def test_what_makes_no_sense_is_one_line_and_status_2(arguments: list[str], words: str, capsys: Capture) -> None:
    assert words in refused(capsys, *arguments)


def test_the_process_ends_with_the_status() -> None:
    done = command("sql", "install", "--apply", PGFANOUT_DATABASE_URL="", DATABASE_URL="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    done = command("sql", "install", "--apply", DATABASE_URL=f"postgresql://{LOOPBACK}:{free_port()}/nowhere")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


URL = f"postgresql://app:{SECRET}@localhost/shop"
MISPLACED = [
    ["sql", "install", URL],
    ["sql", URL],
    [URL],
    ["sql", "install", f"--url={URL}"],
    ["sql", "install", "--url", f"host=localhost password = '{SECRET} and more'"],
    ["sql", "install", "--max-age", URL],
    ["sql", "install", "--apply", "--database-url", f"postgresql+asyncpg://app:{SECRET}@localhost/shop"],
    ["sql", "install", "--apply", "--database-url", f"postgresql://app:a@{SECRET}@localhost/shop"],
    ["sql", "install", "--apply", "--database-url", f"host=localhost password='{SECRET}"],
    ["sql", "install", "--apply", "--database-url", f"{URL}?nonsense={SECRET}"],
    [*TRIGGER, "--apply", "--database-url", SECRET],
]


@pytest.mark.parametrize("arguments", MISPLACED)
def test_a_connection_string_in_the_wrong_place_or_form_is_not_shown(arguments: list[str], capsys: Capture) -> None:
    assert SECRET not in refused(capsys, *arguments)


def test_what_the_server_refuses_is_one_line_and_status_1(fresh_database_url: str, capsys: Capture) -> None:
    apply = ["--apply", "--database-url", fresh_database_url]
    assert 'relation "orders" does not exist' in failed(capsys, *TRIGGER, *apply)
    assert 'role "nobody" does not exist' in failed(capsys, "sql", "install", "--reader", "nobody", *apply)
    with psycopg.connect(fresh_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('pgfanout')").fetchone() == (None,)
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid)")
    assert 'schema "pgfanout" does not exist' in failed(capsys, *TRIGGER, *apply)
    assert main(["sql", "install", *apply]) == 0
    assert "syntax error" in failed(capsys, *TRIGGER, "--when", "id >", *apply)


def test_the_servers_hint_comes_along(fresh_database_url: str, connection: psycopg.Connection, capsys: Capture) -> None:
    Schema().install(connection)
    connection.execute("UPDATE pgfanout.log SET version = 99")
    line = failed(capsys, "sql", "install", "--apply", "--database-url", fresh_database_url)
    assert "of version 99" in line and "Use the newer pgfanout." in line


def test_a_server_that_can_not_be_reached_is_one_line_and_status_1(capsys: Capture) -> None:
    url = f"postgresql://app:{SECRET}@{LOOPBACK}:{free_port()}/shop"
    assert SECRET not in failed(capsys, "sql", "install", "--apply", "--database-url", url)


def test_a_wrong_password_is_not_shown(make_server: MakeServer) -> None:
    with make_server(hba=SCRAM) as server:
        url = server.url(password=SECRET)
        done = command("sql", "install", "--apply", "--database-url", url)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "password authentication failed" in done.stderr
        assert SECRET not in done.stderr
        with pytest.raises(ScriptError) as caught:
            run_script(url, "SELECT 1")
        assert caught.value.__context__ is None


def test_help_is_there_for_every_command(capsys: Capture) -> None:
    for words in ([], ["sql"], ["sql", "install"], ["sql", "trigger"]):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {' '.join(['python -m pgfanout', *words])}")
