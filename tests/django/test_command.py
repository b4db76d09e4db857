"""manage.py pgfanout."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from pgfanout.django import get_hub


def test_it_works_on_the_projects_database(database: None, capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(PGFANOUT={"HISTORY": True, "HISTORY_SCHEMA": "by_command"}):
        call_command("pgfanout", "sql", "install", "--apply")
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('by_command.log') IS NOT NULL")
            assert cursor.fetchone() == (True,)
        call_command("pgfanout", "sql", "status")
        assert "by_command" in capsys.readouterr().out
        call_command("pgfanout", "--database", "default", "sql", "uninstall", "--apply")
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('by_command.log') IS NULL")
            assert cursor.fetchone() == (True,)


def test_an_event_is_published_in_the_projects_way(database: None) -> None:
    with get_hub().subscribe("orders", 7) as subscription:
        call_command("pgfanout", "publish", "orders", '{"id": 42}', "--tenant", "7")
        assert subscription.get(timeout=20.0).json() == {"id": 42}


def test_djangos_options_may_follow_the_command(database: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("pgfanout", "sql", "install", "--database", "default", "--settings=tests.django.project.settings")
    assert "CREATE SCHEMA" in capsys.readouterr().out


def test_an_unknown_alias_is_refused(project: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        call_command("pgfanout", "sql", "status", "--database", "replica")
    assert "argument --database: invalid choice: 'replica'" in capsys.readouterr().err


def test_a_refusal_is_its_exit_status(database: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        call_command("pgfanout", "sql", "trigger", "no_such_table", "--tenant", "shop", "--apply")
    assert "manage.py pgfanout: " in capsys.readouterr().err


def test_without_a_command_it_lists_them(project: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call_command("pgfanout")
    assert "listen" in capsys.readouterr().out


def test_a_database_of_another_kind_is_refused(project: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connection.copy()), "vendor", "sqlite")
    with pytest.raises(CommandError, match="the hub needs PostgreSQL"):
        call_command("pgfanout", "--database", "default", "sql", "status")
