"""Django, set up once for this process, and a test database that its migrations have made."""

from __future__ import annotations

import os
from collections.abc import Iterator

import django
import pytest
from django.db import connections
from django.test.utils import setup_test_environment, teardown_test_environment

from pgfanout.django import close
from tests.support.postgres import PostgresServer, random_name


@pytest.fixture(scope="session", autouse=True)
def project() -> Iterator[None]:
    """The settings of `project`. No database answers yet.

    The browser tests' driver keeps an event loop in this thread, in which Django refuses to use a database.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django.project.settings"
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    django.setup()
    del os.environ["DJANGO_SETTINGS_MODULE"]  # child processes have their own
    setup_test_environment()
    yield
    teardown_test_environment()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def database(project: None, postgres: PostgresServer) -> Iterator[None]:
    """A test database of this process."""
    connection = connections["default"]
    settings = connection.settings_dict
    unreachable = dict(settings)
    settings.update(HOST=postgres.host, PORT=postgres.port, USER="postgres", NAME=random_name())
    connection.creation.create_test_db(verbosity=0)
    yield
    connection.creation.destroy_test_db(settings["NAME"], verbosity=0)
    settings.update(unreachable)


@pytest.fixture(autouse=True)
def no_hub_is_left() -> Iterator[None]:
    """Each test begins without a hub, and closes its own."""
    yield
    close()
