"""The order of the modules, and what importing them does: nothing."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgfanout

PACKAGE = Path(pgfanout.__file__).parent

# From the bottom to the top; a module imports from those above its own line only. The name of a
# package stands for its `__init__`, "" for that of pgfanout itself.
ORDER = [
    "threads",
    "rate_limit",
    "errors",
    "topic",
    "event",
    "payload",
    "envelope",
    "stats",
    "executor",
    "delivery",
    "delivery.log",
    "delivery.tail",
    "delivery.reader",
    "delivery.few",
    "delivery.waker",
    "delivery.backlog",
    "delivery.subscription",
    "delivery.feed",
    "delivery.follower",
    "delivery.registry",
    "delivery.dispatcher",
    "delivery.intake",
    "delivery.questions",
    "delivery.replay",
    "fork",
    "replayer",
    "attempt",
    "lifecycle",
    "backend",
    "core",
    "hub",
    "dropped",
    "backends",
    "backends.after_commit",
    "backends.memory",
    "backends.postgres.url",
    "backends.postgres.conninfo",
    "backends.postgres.diagnosis",
    "backends.postgres.watchdog",
    "backends.postgres.heartbeat",
    "backends.postgres.outage",
    "backends.postgres.session",
    "backends.postgres.executors",
    "backends.postgres.lane",
    "backends.postgres.line",
    "backends.postgres.own_connections",
    "backends.postgres.publisher",
    "backends.postgres.history.schema",
    "backends.postgres.history.settings",
    "backends.postgres.history",
    "backends.postgres.history.table",
    "backends.postgres.history.store",
    "backends.postgres.history.script",
    "backends.postgres.history.status",
    "backends.postgres.history.trigger",
    "backends.postgres.listener",
    "backends.postgres.backend",
    "backends.postgres.hub",
    "backends.postgres",
    "streams.sse",
    "streams.client",
    "streams.descriptors",
    "streams.endings",
    "streams.limiter",
    "streams.advice",
    "streams.threaded",
    "streams.detached.wheel",
    "streams.detached.held",
    "streams.detached.connection",
    "streams.detached.broadcast",
    "streams.detached.audience",
    "streams.detached.mailbox",
    "streams.detached.poller",
    "streams.detached.loop",
    "streams.detached.streamer",
    "streams.detached.takeover",
    "streams.detached.stream",
    "streams.detached",
    "streams.endpoint",
    "streams",
    "streams.state",
    "settings",
    "cli.parser",
    "cli.events",
    "cli.sql",
    "cli.main",
    "cli",
    "testing",
    "static.client",
    "static",
    "flask",
    "gunicorn",
    "django.database",
    "django.response",
    "django.live",
    "django.views",
    "django.urls",
    "django.templatetags",
    "django.templatetags.pgfanout",
    "django.checks",
    "django.apps",
    "django.operations",
    "django.management",
    "django.management.commands",
    "django.management.commands.pgfanout",
    "django",
    "__main__",
    "",
]

# Who may import what beyond the standard library.
DRIVERS = {"backends.postgres": {"psycopg"}, "flask": {"click", "flask"}, "django": {"django"}}

# Neighbours that don't know each other, though one stands above the other.
STRANGERS = [
    ("backends.postgres", "backends.memory"),
    ("streams", "backends"),
    ("gunicorn", "backends"),
    ("gunicorn", "flask"),
    ("django", "flask"),
]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def own_imports(module: str) -> Iterator[str]:
    """The modules of pgfanout that a module imports from."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package_of(module).split(".")
            start = ".".join(base[: len(base) - node.level + 1])
            source = ".".join(filter(None, [start, node.module]))
            for alias in node.names:
                inner = f"{source}.{alias.name}".removeprefix("pgfanout").removeprefix(".")
                yield inner if inner in MODULES else source.removeprefix("pgfanout").removeprefix(".")


def foreign_imports(module: str) -> Iterator[str]:
    """The top-level packages that a module imports by an absolute name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    full = f"pgfanout.{module}".rstrip(".")
    return full if MODULES[module].name == "__init__.py" else full.rpartition(".")[0]


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_down_only(module: str) -> None:
    below = ORDER[: ORDER.index(module)]
    assert set(own_imports(module)) <= set(below)


def test_the_reader_of_imports_sees_them() -> None:
    assert {"errors", "event", "topic"} <= set(own_imports("envelope"))
    assert {"hub", "streams.sse", "streams.threaded"} <= set(own_imports("streams.endpoint"))
    assert {"hub", "topic", "backends.postgres.listener"} <= set(own_imports("backends.postgres.hub"))
    assert {"hub", "backends.postgres", "streams"} <= set(own_imports(""))
    assert "backends.postgres.conninfo" in set(own_imports("backends.postgres.listener"))
    assert {"psycopg", "threading"} <= set(foreign_imports("backends.postgres.own_connections"))


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_strangers_stay_strangers(one: str, other: str) -> None:
    for module in MODULES:
        if within(module, one):
            assert not [imported for imported in own_imports(module) if within(imported, other)]


@pytest.mark.parametrize("module", ORDER)
def test_only_the_standard_library_and_the_modules_own_driver_are_imported(module: str) -> None:
    drivers = {driver for place, names in DRIVERS.items() if within(module, place) for driver in names}
    assert set(foreign_imports(module)) - set(sys.stdlib_module_names) <= drivers


@pytest.mark.parametrize("module", ORDER)
def test_imports_stand_at_the_top(module: str) -> None:
    for function in ast.walk(tree(module)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            assert not [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]


@pytest.mark.parametrize("module", [name for name in ORDER if name != "backends"])
def test_what_a_module_offers_is_named_and_there(module: str) -> None:
    loaded = importlib.import_module(f"pgfanout.{module}".rstrip("."))
    assert loaded.__all__ == sorted(set(loaded.__all__), key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_the_public_names_are_the_documented_ones() -> None:
    assert set(pgfanout.__all__) == {
        "CLOSE_EVENT",
        "REFRESH_EVENT",
        "Event",
        "Executor",
        "History",
        "HubClosedError",
        "HubConfigurationError",
        "HubStats",
        "HubTimeoutError",
        "InvalidEventError",
        "MemoryHub",
        "NotifyHub",
        "PayloadTooLargeError",
        "PgFanoutError",
        "PostgresHub",
        "StreamLimiter",
        "Subscription",
        "TenantId",
        "TooManyOpenFilesError",
        "TooManyStreamsError",
        "TooManyStreamsForUserError",
        "__version__",
    }


def test_the_packages_init_hands_names_on_and_does_nothing_else() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            kinds = {type(node) for node in tree(module).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, module


def test_the_annotations_are_there_for_others() -> None:
    assert (PACKAGE / "py.typed").exists()


def in_a_new_process(code: str) -> object:
    """What a fresh interpreter prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


IMPORT_EVERYTHING = """
import json, os, sys, threading
import psycopg, flask, django.db, django.http  # what these do is theirs
seen = []
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.system", "sqlite3.")):
        seen.append(event)
    elif event.startswith("_thread.") or (event == "open" and arguments[1] not in (None, "r", "rb")):
        seen.append(f"{event} {arguments}")
descriptors = os.listdir("/dev/fd")
sys.addaudithook(watch)
sys.dont_write_bytecode = True
import pgfanout, pgfanout.django, pgfanout.django.apps, pgfanout.flask, pgfanout.gunicorn
watched = list(seen)
print(json.dumps([
    watched,
    sorted(thread.name for thread in threading.enumerate()),
    len(os.listdir("/dev/fd")) - len(descriptors),
]))
"""


def test_importing_starts_no_thread_and_opens_nothing() -> None:
    assert in_a_new_process(IMPORT_EVERYTHING) == [[], ["MainThread"], 0]


IMPORT_WITHOUT = """
import json, sys
sys.modules["django"] = sys.modules["flask"] = sys.modules["gunicorn"] = sys.modules["werkzeug"] = None
import pgfanout, pgfanout.gunicorn
loaded = [name for name, module in sys.modules.items() if module]
print(json.dumps([name for name in loaded if name.startswith(("django", "flask"))]))
"""


def test_no_framework_and_no_server_is_needed_unless_it_is_used() -> None:
    assert in_a_new_process(IMPORT_WITHOUT) == []
