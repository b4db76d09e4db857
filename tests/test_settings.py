"""Settings: which hub a URL selects, which of several URLs counts, and what the errors say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from pgfanout import HubConfigurationError, MemoryHub, PostgresHub
from pgfanout.hub import core_of
from pgfanout.settings import DEFAULTS, Settings, url_of

# Private members: the size of a hub's buffers shows nowhere else.

ROOT = Path(__file__).parents[1]
SECRET = "s3cr3t"
URL = f"postgresql://app:{SECRET}@localhost/shop"
OTHER = f"postgresql://app:{SECRET}@localhost/other"


def in_django(name: str) -> str:
    return f'PGFANOUT["{name}"]'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("PGFANOUT_URL", raising=False)
    monkeypatch.delenv("PGFANOUT_DATABASE_URL", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (URL, PostgresHub),
        ("postgres://localhost/shop", PostgresHub),
        ("host=localhost dbname=shop", PostgresHub),
        ("host=localhost password=a://b", PostgresHub),
        ("memory://", MemoryHub),
    ],
)
def test_the_scheme_selects_the_hub(url: str, kind: type[Any]) -> None:
    assert type(Settings({"URL": url}).new_hub()) is kind


@pytest.mark.parametrize("scheme", ["mysql", "redis", "http", "postgresqlx", "memory.x"])
def test_an_unknown_scheme_is_named_with_those_that_exist(scheme: str) -> None:
    settings = Settings({"URL": f"{scheme}://app:{SECRET}@localhost/shop"}, in_django)
    with pytest.raises(HubConfigurationError) as caught:
        settings.new_hub()
    assert str(caught.value) == (
        f'PGFANOUT["URL"] begins with {scheme}://, and no hub has that scheme.'
        " There are postgresql://, postgres://, memory://"
    )


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"{SECRET}://",
        f"app:{SECRET}://localhost",
        f"memory://{SECRET}",
        f"postgresql://app:{SECRET}@localhost:port:x/?nonsense",
        f"password={SECRET} nonsense",
    ],
)
def test_an_url_that_is_refused_is_not_shown(url: str) -> None:
    with pytest.raises(HubConfigurationError) as caught:
        Settings({"URL": url}).new_hub()
    assert f":{SECRET}" not in str(caught.value) and f"={SECRET}" not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_is_no_text_is_named_by_its_type() -> None:
    with pytest.raises(HubConfigurationError, match="PGFANOUT_URL has to be text, not a list"):
        Settings({"URL": [URL]}).new_hub()


def test_no_url_at_all_is_an_error_that_says_where_it_may_be() -> None:
    with pytest.raises(HubConfigurationError, match=r'PGFANOUT\["URL"\] is not set.*environment.s PGFANOUT_URL'):
        Settings({}, in_django).new_hub()


@pytest.mark.parametrize("name", ["URL", "DATABASE_URL"])
def test_what_is_given_goes_before_the_environment(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGFANOUT_URL", OTHER)
    assert url_of({name: URL}) == URL
    assert url_of({name: ""}) == OTHER


def test_the_environment_may_have_the_alias(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGFANOUT_DATABASE_URL", OTHER)
    assert url_of({}) == OTHER


def test_a_setting_and_its_alias_may_agree(environment: pytest.MonkeyPatch) -> None:
    assert url_of({"URL": URL, "DATABASE_URL": URL}) == URL
    environment.setenv("PGFANOUT_URL", OTHER)
    environment.setenv("PGFANOUT_DATABASE_URL", OTHER)
    assert url_of({}) == OTHER


def test_a_setting_and_its_alias_that_differ_are_both_named(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubConfigurationError) as caught:
        url_of({"URL": URL, "DATABASE_URL": OTHER}, in_django)
    assert 'PGFANOUT["URL"] and PGFANOUT["DATABASE_URL"]' in str(caught.value) and SECRET not in str(caught.value)
    environment.setenv("PGFANOUT_URL", URL)
    environment.setenv("PGFANOUT_DATABASE_URL", OTHER)
    with pytest.raises(HubConfigurationError, match="PGFANOUT_URL and PGFANOUT_DATABASE_URL are one setting"):
        url_of({}, in_django)


def test_the_buffers_settings_reach_the_memory_hub() -> None:
    core = core_of(Settings({"URL": "memory://", "BUFFER_SIZE": "7", "BUFFER_BYTES": 8}).new_hub())
    assert (core._buffer_size, core._buffer_bytes) == (7, 8)


def test_a_value_of_the_wrong_type_is_named_as_the_user_writes_it() -> None:
    with pytest.raises(HubConfigurationError) as caught:
        Settings({"KEEPALIVE": "15s"}, in_django)
    assert str(caught.value) == "PGFANOUT[\"KEEPALIVE\"] has to be a number, not '15s'"


def test_settings_that_are_not_given_have_their_defaults_and_unknown_names_are_ignored() -> None:
    assert Settings({"CLIENT": "x"}).values == DEFAULTS


def test_the_endpoint_has_the_settings() -> None:
    settings = Settings({"URL": "memory://", "KEEPALIVE": "7", "MAX_STREAMS": 3, "DETACH": False})
    endpoint = settings.new_endpoint(settings.new_hub())
    assert (endpoint.keepalive, endpoint.limiter.max_streams, endpoint.detach) == (7.0, 3, "never")


def test_every_setting_is_in_the_documents_with_its_default() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("settings.md", "history.md"))
    rows = dict(re.findall(r"^\| `PGFANOUT_([A-Z_]+)` \| `([^`]*)` \|", text, re.MULTILINE))
    defaults = {name: default for name, default in DEFAULTS.items() if name not in ("URL", "DATABASE_URL")}
    assert {name: ast.literal_eval(default) for name, default in rows.items()} == defaults
