"""`pgfanout sql`: what it prints, what it applies, what it says is installed, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from pgfanout import PostgresHub
from pgfanout.backends.postgres.history.schema import Schema
from pgfanout.backends.postgres.history.script import ScriptError, run_script
from pgfanout.backends.postgres.history.trigger import TableTrigger
from pgfanout.cli import main

from ..support.ports import LOOPBACK, free_port
from ..support.postgres import SCRAM, MakeServer, PostgresServer, random_name
from .conftest import Capture, command, failed, printed, refused

SECRET = "s3cr3t"
TENANT = "11111111-1111-4111-8111-111111111111"
TRIGGER = ["sql", "trigger", "orders", "--tenant", "tenant_id", "--key", "id"]


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


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


@pytest.mark.parametrize("variable", ["PGFANOUT_URL", "PGFANOUT_DATABASE_URL", "DATABASE_URL"])
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
    monkeypatch.setenv("PGFANOUT_URL", fresh_database_url)
    assert printed(capsys, "sql", "install", "--apply") == ""
    monkeypatch.setenv("PGFANOUT_URL", nowhere)
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid)")
    assert printed(capsys, *TRIGGER, "--apply", "--url", fresh_database_url) == ""
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass"
    assert connection.execute(triggers).fetchone() == (4,)
    assert printed(capsys, *TRIGGER, "--drop", "--apply", "--url", fresh_database_url) == ""
    assert connection.execute(triggers).fetchone() == (0,)


def test_install_changes_the_settings_of_a_log_that_is_there(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    apply = ["sql", "install", "--apply", "--url", fresh_database_url]
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
        printed(capsys, "sql", "install", "--apply", "--url", fresh_database_url, "--publisher", name)
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
    (["sql", "install", "--apply"], "PGFANOUT_URL"),
    (["sql", "install", "--apply", "--url", "memory://"], "one process alone"),
    (["sql", "trigger"], "TABLE"),
    (["sql", "trigger", "orders", "--tenant", ""], "column needs a name"),
    (["sql", "trigger", "orders", "--tenant", "t", "--key", "id,"], "column needs a name"),
    (["sql", "trigger", "", "--drop"], "table needs a name"),
    ([*TRIGGER, "--channel", "x" * 64], "64 bytes"),
    ([*TRIGGER, "--columns", ""], "column needs a name"),
]


@pytest.mark.parametrize(("arguments", "words"), MEANINGLESS)
def test_what_makes_no_sense_is_one_line_and_status_2(arguments: list[str], words: str, capsys: Capture) -> None:
    assert words in refused(capsys, *arguments)


def test_the_process_ends_with_the_status() -> None:
    done = command("sql", "install", "--apply", PGFANOUT_URL="", DATABASE_URL="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    done = command("sql", "install", "--apply", DATABASE_URL=f"postgresql://{LOOPBACK}:{free_port()}/nowhere")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


URL = f"postgresql://app:{SECRET}@localhost/shop"
MISPLACED = [
    ["sql", "install", URL],
    ["sql", URL],
    [URL],
    ["sql", "install", f"--database={URL}"],
    ["sql", "install", "--database", f"host=localhost password = '{SECRET} and more'"],
    ["sql", "install", "--max-age", URL],
    ["sql", "install", "--apply", "--url", f"postgresql+asyncpg://app:{SECRET}@localhost/shop"],
    ["sql", "install", "--apply", "--url", f"postgresql://app:a@{SECRET}@localhost/shop"],
    ["sql", "install", "--apply", "--url", f"host=localhost password='{SECRET}"],
    ["sql", "install", "--apply", "--url", f"{URL}?nonsense={SECRET}"],
    [*TRIGGER, "--apply", "--url", SECRET],
]


@pytest.mark.parametrize("arguments", MISPLACED)
def test_a_connection_string_in_the_wrong_place_or_form_is_not_shown(arguments: list[str], capsys: Capture) -> None:
    assert SECRET not in refused(capsys, *arguments)


def test_what_the_server_refuses_is_one_line_and_status_1(fresh_database_url: str, capsys: Capture) -> None:
    apply = ["--apply", "--url", fresh_database_url]
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
    line = failed(capsys, "sql", "install", "--apply", "--url", fresh_database_url)
    assert "of version 99" in line and "Use the newer pgfanout." in line


def test_a_server_that_can_not_be_reached_is_one_line_and_status_1(capsys: Capture) -> None:
    url = f"postgresql://app:{SECRET}@{LOOPBACK}:{free_port()}/shop"
    assert SECRET not in failed(capsys, "sql", "install", "--apply", "--url", url)


def test_a_wrong_password_is_not_shown(make_server: MakeServer) -> None:
    with make_server(hba=SCRAM) as server:
        url = server.url(password=SECRET)
        done = command("sql", "install", "--apply", "--url", url)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "password authentication failed" in done.stderr
        assert SECRET not in done.stderr
        with pytest.raises(ScriptError) as caught:
            run_script(url, "SELECT 1")
        assert caught.value.__context__ is None


# What is installed.


def test_status_describes_the_history_and_its_tables(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    url = ["--url", fresh_database_url]
    assert "no history in the schema pgfanout" in failed(capsys, "sql", "status", *url)
    printed(capsys, "sql", "install", "--apply", "--max-rows", "7", *url)
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid)")
    printed(capsys, *TRIGGER, "--apply", *url)
    connection.execute("INSERT INTO orders VALUES (1, %s), (2, NULL), (3, NULL)", [TENANT])
    lines = printed(capsys, "sql", "status", *url).splitlines()
    assert [line.split()[0] for line in lines] == ["schema", "channel", "keeps", "events", "table", "passed"]
    assert "pgfanout, version " in lines[0] and "This pgfanout" not in lines[0]
    assert "pgfanout_events" in lines[1]
    assert "1 day, 7 events, 1048576 bytes" in lines[2]
    assert " 1, from 20" in lines[3]
    assert " orders " in lines[4] and "tenant=tenant_id" in lines[4]
    assert lines[5] == "passed over 2 rows of tables, without a valid tenant"


def test_status_says_what_an_older_history_needs(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    Schema().install(connection)
    connection.execute(
        "CREATE OR REPLACE FUNCTION pgfanout._installed(OUT version integer, OUT revision integer)"
        " LANGUAGE sql STABLE AS 'SELECT 1, 1'"
    )
    status = ["sql", "status", "--url", fresh_database_url]
    assert "version 1.1. This pgfanout has" in (shown := printed(capsys, *status))
    assert "run pgfanout sql install --apply" in shown
    connection.execute("DELETE FROM pgfanout.log")
    assert "has lost its settings" in failed(capsys, *status)


def test_prune_removes_what_is_too_much(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    Schema(max_rows=10).install(connection)
    events = [("orders", TENANT, number) for number in range(2510)]
    with PostgresHub(fresh_database_url, history=True) as hub:
        hub.publish_many(events)
    prune = ["sql", "prune", "--url", fresh_database_url]
    assert printed(capsys, *prune) == "2500 events removed\n"
    assert printed(capsys, *prune) == "0 events removed\n"
    with psycopg.connect(fresh_database_url) as other:
        other.execute("SELECT FROM pgfanout.log FOR UPDATE")
        assert "another process is pruning" in failed(capsys, *prune)


def test_uninstall_leaves_nothing_and_may_be_run_again(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    url = ["--url", fresh_database_url]
    printed(capsys, "sql", "install", "--apply", *url)
    connection.execute('CREATE SCHEMA sales; CREATE TABLE sales."Order Items" (id integer PRIMARY KEY, t uuid)')
    printed(capsys, "sql", "trigger", "sales.Order Items", "--tenant", "t", "--apply", *url)
    assert printed(capsys, "sql", "uninstall") == Schema().drop_script()
    for _ in range(2):
        assert printed(capsys, "sql", "uninstall", "--apply", *url) == ""
    assert connection.execute("SELECT to_regnamespace('pgfanout')").fetchone() == (None,)
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
    functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'sales'::regnamespace"
    assert connection.execute(functions).fetchone() == (0,)
    connection.execute('INSERT INTO sales."Order Items" VALUES (1, NULL)')


def test_uninstall_keeps_functions_of_others(
    fresh_database_url: str, connection: psycopg.Connection, capsys: Capture
) -> None:
    url = ["--url", fresh_database_url]
    printed(capsys, "sql", "install", "--apply", *url)
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, tenant_id uuid); CREATE TABLE bills (id integer)")
    printed(capsys, *TRIGGER, "--apply", *url)
    connection.execute("CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    for table, name in (("orders", "audit"), ("bills", "pgfanout_insert")):
        create = f"CREATE TRIGGER {name} AFTER INSERT ON {table} EXECUTE FUNCTION audit()"
        connection.execute(create.encode())
    printed(capsys, "sql", "uninstall", "--apply", *url)
    triggers = connection.execute("SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1").fetchall()
    assert triggers == [("audit",), ("pgfanout_insert",)]
    assert connection.execute("SELECT proname FROM pg_proc WHERE proname = 'pgfanout_orders'").fetchall() == []
