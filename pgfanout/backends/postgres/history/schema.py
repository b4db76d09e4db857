"""The history's schema: the SQL that installs it or updates it to this version of the library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ....topic import check_channel
from ..conninfo import execute

__all__ = [
    "IDENTIFIER_LIMIT",
    "MAX_PAYLOAD",
    "REQUIRED",
    "REVISION",
    "VERSION",
    "Schema",
    "check_schema",
    "trigger_name",
]

MAX_PAYLOAD: Final = 1_048_576
"""The default for the most bytes of JSON in an event of the log."""

_STEPS: Final = ("001_log.sql", "002_marks.sql", "003_tenants.sql")
"""The changes of the tables, version by version. Never change a step that was released."""

VERSION: Final = len(_STEPS)

REQUIRED: Final = 1
"""The oldest version of the tables that a hub of this release works with, so you may update workers before tables."""

REVISION: Final = 2
"""The revision of functions.sql. Increase it in each release that changes that file or adds a step. 0 means none."""

IDENTIFIER_LIMIT: Final = 63
"""The most bytes of UTF-8 in a PostgreSQL identifier."""

_NAME: Final = re.compile("(?!pg_)[a-z_][a-z0-9_]{0,62}")  # PostgreSQL reserves names that begin with pg_

# In a name it could end the dollar quotes around the script.
_DOLLAR_QUOTE: Final = re.compile(r"\$\w*\$")

_PATIENCE: Final = "1min"
"""How long a first installation waits for another one, unless the session has a `lock_timeout`."""

_ATTEMPTS: Final = 60
"""How often an upgrade that rewrites tables tries to lock them, for 0.3 s each, once in a second."""

_STEP: Final = """
IF installed.version < {number} THEN
EXECUTE $step$
{step}
$step$;
END IF;
"""

_PUBLISHING: Final = (
    *(
        f"publish(text, {tenant}, {payload}, text)"
        for tenant, payload in product(("text", "uuid", "bigint"), ("text", "json", "jsonb"))
    ),
    *(
        f"publish_many(text[], {tenants}, json[], text[])"
        for tenants in (*(f"{each}[]" for each in ("text", "uuid", "bigint")), "text")
    ),
    "_pass_over(bigint)",
)


def _text(file: str) -> str:
    return (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")


def check_schema(name: str) -> str:
    """Return the name if it is valid for the history's schema, else raise `ValueError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"the history's schema has to be lower-case letters, digits and underscores, not {name!r}")
    return name


def trigger_name(schema: str, part: str) -> str:
    """Return the name of a part of a table's trigger. If it is too long, it is cut and a digest makes it unique."""
    data = f"{schema}_{part}".encode()
    if len(data) <= IDENTIFIER_LIMIT:
        return f"{schema}_{part}"
    return f"{data[: IDENTIFIER_LIMIT - 13].decode(errors='ignore')}_{hashlib.sha256(data).hexdigest()[:12]}"


def _check_quotable(name: str) -> str:
    if _DOLLAR_QUOTE.search(name):
        raise ValueError(f"the history's SQL can't have a name with $$ or $...$ in it: {name!r}")
    return name


@dataclass(frozen=True)
class Schema:
    """The log's schema and settings.

    Events are kept for `max_age` seconds (default: a day), and `max_rows` of them at most (a million). A payload may
    have `max_payload` bytes of JSON (1 MiB). Hubs listen on `postgres_channel` ("pgfanout_events"). A setting that is
    None stays as it is in an existing log.
    """

    name: str = "pgfanout"
    postgres_channel: str | None = None
    max_age: float | None = None
    max_rows: int | None = None
    max_payload: int | None = None

    def __post_init__(self) -> None:
        check_schema(self.name)
        if self.postgres_channel is not None:
            _check_quotable(check_channel(self.postgres_channel))
        if self.max_age is not None and not 0 < self.max_age <= 3_650 * 86_400.0:
            raise ValueError("the age of kept events is a number of seconds: above 0, ten years at most")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError("max_rows must be at least 1")
        if self.max_payload is not None and not 0 < self.max_payload <= 64 * MAX_PAYLOAD:
            raise ValueError(f"the size of a payload is a number of bytes: above 0, {64 * MAX_PAYLOAD} at most")

    def script(self, publishers: Iterable[str] = (), readers: Iterable[str] = (), *, repair: bool = True) -> str:
        """Return the SQL that installs the schema: one statement that may be run again.

        It installs this release's functions and applies the settings. Without `repair` it keeps functions that are of
        this release or newer, and the settings of an existing log. It grants `publishers` the rights to publish, and
        `readers` the rights to listen, replay and prune. It fails for newer functions, unless it keeps them.

        Under REPEATABLE READ or SERIALIZABLE it may fail with 40001 during another installation: run it again.
        """
        grants = self._grants(publishers, readers)
        steps = [_STEP.format(number=number, step=self._filled(step)) for number, step in enumerate(_STEPS, 1)]
        return self._filled(
            "install.sql",
            lock=self._lock("install"),
            patience=_PATIENCE,
            attempts=str(_ATTEMPTS),
            spare=str(not repair).lower(),
            only_looks=str(not repair and not grants).lower(),
            steps="".join(steps),
            channel=sql.Literal(self.postgres_channel).as_string(None) + "::text",
            settings=", ".join(self._settings()),
            functions=self._filled("functions.sql"),
            grants="".join(f"    {grant};\n" for grant in grants),
        )

    def drop_script(self) -> str:
        """Return the SQL that drops the schema with its events and all triggers. You may run it again."""
        names = (trigger_name(self.name, part) for part in ("insert", "update", "delete", "columns"))
        return self._filled("uninstall.sql", triggers=", ".join(f"'{name}'" for name in names))

    def install(
        self,
        connection: psycopg.Connection[Any],
        publishers: Iterable[str] = (),
        readers: Iterable[str] = (),
        *,
        repair: bool = False,
    ) -> None:
        """Run the script in the connection's transaction. Block for as long as it takes. Raise psycopg's errors.

        If no transaction is under way, begin one that may write and that sees what others have installed meanwhile,
        whatever the defaults are.
        """
        script = self.script(publishers, readers, repair=repair)
        is_idle = connection.info.transaction_status == TransactionStatus.IDLE
        with connection.transaction() if connection.autocommit and is_idle else nullcontext():
            if is_idle:
                execute(connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE")
            execute(connection, script)

    def _grants(self, publishers: Iterable[str], readers: Iterable[str]) -> list[str]:
        publishing = ", ".join(f"{self.name}.{function}" for function in _PUBLISHING)
        return [
            *self._granted(publishers, [f"EXECUTE ON FUNCTION {publishing}"]),
            *self._granted(
                readers,
                [
                    f"SELECT ON {self.name}.event, {self.name}.log, {self.name}.table_trigger, {self.name}.passed_over",
                    f"EXECUTE ON FUNCTION {self.name}.prune(integer, double precision)",
                ],
            ),
        ]

    def _granted(self, roles: Iterable[str], rights: Sequence[str]) -> list[str]:
        names = [sql.Identifier(_check_quotable(role)).as_string(None) for role in roles]
        everything = [f"USAGE ON SCHEMA {self.name}", *rights]
        return [f"GRANT {right} TO {', '.join(names)}" for right in everything] if names else []

    def _filled(self, file: str, **more: str) -> str:
        values = {
            "schema": self.name,
            "lock": self._lock("commit"),
            "version": str(VERSION),
            "revision": str(REVISION),
            "columns_trigger": f"'{trigger_name(self.name, 'columns')}'",
            **more,
        }
        # Other placeholders stay: the script replaces them with the log's settings.
        return re.sub("@([a-z_]+)@", lambda found: values.get(found.group(1), found.group()), _text(file))

    def _settings(self) -> Iterator[str]:
        yield f"version = {VERSION}"  # so that the list is never empty
        if self.postgres_channel is not None:
            yield f"postgres_channel = {sql.Literal(self.postgres_channel).as_string(None)}"
        if self.max_age is not None:
            yield f"max_age = interval '{self.max_age:.6f} seconds'"
        for name, value in (("max_rows", self.max_rows), ("max_payload", self.max_payload)):
            if value is not None:
                yield f"{name} = {value}"

    def _lock(self, purpose: str) -> str:
        """Return the key of an advisory lock: https://www.postgresql.org/docs/current/explicit-locking.html"""
        digest = hashlib.sha256(f"pgfanout {self.name} {purpose}".encode()).digest()
        return f"({int.from_bytes(digest[:8], 'big', signed=True)})::bigint"
