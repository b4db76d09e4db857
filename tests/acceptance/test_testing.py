"""docs/testing.md: its applications and their tests, run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest

from tests.support.postgres import PostgresServer, random_name
from tests.support.processes import REPOSITORY

from .apps.names import block

PAGE = "docs/testing.md"

SETTINGS = """
from urllib.parse import urlsplit
import os
server = urlsplit(os.environ["TEST_SERVER_URL"])
SECRET_KEY = "for tests"
INSTALLED_APPS = ["pgfanout.django", "shop"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": server.hostname, "PORT": server.port,
    "USER": server.username, "NAME": "postgres", "TEST": {"NAME": os.environ["TEST_DATABASE"]}}}
"""

MEMORY_SETTINGS = """
SECRET_KEY = "for tests"
INSTALLED_APPS = ["pgfanout.django", "shop"]
ROOT_URLCONF = "shop.urls"
PGFANOUT = {"URL": "memory://"}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

MODELS = """
from django.db import models
class Order(models.Model):
    id = models.IntegerField(primary_key=True)
    shop_id = models.IntegerField()
    status = models.TextField()
"""

URLS = """
from django.urls import path
from . import views
urlpatterns = [path("shops/<int:shop_id>/events", views.events), path("orders/<int:id>/ship", views.ship)]
"""


def run_tests(folder: Path, *options: str, **environment: str) -> str:
    """Run a user's tests in a folder of their own. Return what pytest says."""
    # The repository comes last on the path, as elsewhere.
    main = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"
    done = subprocess.run(
        [sys.executable, "-c", main, str(REPOSITORY), "-q", *options],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name in ("shop.py", "conftest.py", "test_shop.py"):
        (tmp_path / name).write_text(block(PAGE, f"# {name}\n"))
    return tmp_path


def test_flasks_tests_need_no_database(shop: Path) -> None:
    assert "3 passed" in run_tests(shop)


def test_flasks_streams_run_on_postgres_and_the_database_can_be_dropped(shop: Path, postgres: PostgresServer) -> None:
    (shop / "conftest.py").write_text(block(PAGE, "# conftest.py for PostgreSQL\n"))
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop_test")  # as a run that was killed leaves it
        # A URL without a host before the path, as one of a Unix socket has.
        url = "postgresql:///postgres?" + urlencode(parameters_of(connection))
        assert "2 passed" in run_tests(shop, "-k", "not rolled_back", TEST_SERVER_URL=url)
        assert connection.execute("SELECT FROM pg_database WHERE datname = 'shop_test'").fetchall() == []


def parameters_of(connection: psycopg.Connection) -> dict[str, str | int]:
    info = connection.info
    return {"host": info.host, "port": info.port, "user": info.user, "password": info.password}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    files = {
        "shop/__init__.py": "",
        "shop/settings.py": SETTINGS,
        "shop/models.py": MODELS,
        "shop/urls.py": URLS,
        "shop/views.py": block(PAGE, "# views.py\n"),
        "conftest.py": block(PAGE, "# conftest.py for Django\n"),
        "test_shop.py": block(PAGE, "# test_django_shop.py\n"),
        "pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = shop.settings\npythonpath = .\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_djangos_tests_use_the_test_database_and_leave_nothing(project: Path, postgres: PostgresServer) -> None:
    name = random_name()
    assert "3 passed" in run_tests(project, TEST_SERVER_URL=postgres.url(), TEST_DATABASE=name)
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchall() == []


def test_djangos_tests_need_no_postgres(project: Path) -> None:
    (project / "shop" / "settings.py").write_text(MEMORY_SETTINGS)
    (project / "test_memory.py").write_text(block(PAGE, "# test_memory.py\n"))
    # Without the first test of the other file, for which Django never commits.
    assert "3 passed" in run_tests(project, "-k", "test_memory or page")


NO_DATABASE = """
import pytest
from django.test import SimpleTestCase
from pgfanout.django import cursor, get_hub

@pytest.mark.parametrize("ask", [get_hub, cursor])
def test_of_pytest(ask):
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        ask()

class TestOfDjango(SimpleTestCase):
    def test(self):
        for ask in (get_hub, cursor):
            with pytest.raises((AssertionError, RuntimeError), match="not allowed"):
                ask()
"""


def test_a_test_without_a_database_has_no_hub_at_the_projects_own(tmp_path: Path, fresh_database_url: str) -> None:
    (tmp_path / "settings.py").write_text(SETTINGS.replace('"pgfanout.django", "shop"', '"pgfanout.django"'))
    (tmp_path / "test_hub.py").write_text(NO_DATABASE)
    given = {"TEST_SERVER_URL": fresh_database_url, "TEST_DATABASE": random_name()}
    said = run_tests(tmp_path, "-p", "pytest_django", "--ds=settings", "-p", "no:cacheprovider", **given)
    assert "3 passed" in said
