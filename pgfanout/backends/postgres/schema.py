"""The history's schema: the SQL that makes it, or makes it what this version of the library needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import psycopg
from psycopg import sql

from ...topic import check_channel

__all__ = ["MAX_PAYLOAD", "VERSION", "Schema", "check_schema"]

MAX_PAYLOAD: Final = 1_048_576
"""Bytes of JSON that an event of the log may have, unless configured."""

_STEPS: Final = ("001_log.sql",)
"""What was done to the tables, version by version. A step that was released does not change any more."""

VERSION: Final = len(_STEPS)

_NAME: Final = re.compile("(?!pg_)[a-z_][a-z0-9_]{0,62}")  # what begins with pg_ is PostgreSQL's own

# A name with one in it could end the quotes that the script stands in.
_DOLLAR_QUOTE: Final = re.compile(r"\$\w*\$")

# One statement, so that it is done or not done as a whole, whatever runs it: psql, a migration tool, or the library.
# Nothing that others have put into a schema of the installer's path is found by it.
_SCRIPT: Final = """\
-- The history of pgfanout, version {version}. It may be run at any time, by several at once: it does what is missing.
DO $pgfanout$
DECLARE
    installed integer := 0;
    notified text;
    settings record;
    path text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM pg_advisory_xact_lock({lock});
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
    IF to_regclass('{schema}.log') IS NOT NULL THEN
        SELECT version INTO STRICT installed FROM {schema}.log;
    END IF;
    IF installed > {version} THEN
        RAISE EXCEPTION 'the history in the schema {schema} is of version %, this is version {version}', installed
            USING HINT = 'Use the newer pgfanout.';
    END IF;
{steps}
    SELECT postgres_channel INTO STRICT notified FROM {schema}.log;
    UPDATE {schema}.log SET {settings};
    SELECT * INTO STRICT settings FROM {schema}.log;
    IF settings.postgres_channel <> notified THEN
        -- Who is publishing ends on the old channel; who comes meanwhile waits, and finds the new one.
        LOCK TABLE {schema}.pending, {schema}.pending_many IN SHARE ROW EXCLUSIVE MODE;
    END IF;
EXECUTE replace(replace($functions$
{functions}$functions$,
        '@max_payload@', settings.max_payload::text), '@postgres_channel@', quote_literal(settings.postgres_channel));
{grants}    PERFORM set_config('search_path', path, true);
END
$pgfanout$;
"""

_STEP: Final = """
IF installed < {number} THEN
EXECUTE $step$
{step}
$step$;
END IF;
"""

_PUBLISHING: Final = (
    "publish(text, uuid, text, text)",
    "publish(text, uuid, json, text)",
    "publish(text, uuid, jsonb, text)",
    "publish_many(text[], uuid[], json[], text[])",
)


def _text(file: str) -> str:
    return (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")


def check_schema(name: str) -> str:
    """The name itself, when it can be a schema's. Raises `ValueError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"the history's schema has to be lower-case letters, digits and underscores, not {name!r}")
    return name


def _check_quotable(name: str) -> str:
    if _DOLLAR_QUOTE.search(name):
        raise ValueError(f"the history's SQL can't have a name with $$ or $...$ in it: {name!r}")
    return name


@dataclass(frozen=True)
class Schema:
    """Where the log is and how it is kept.

    Events are kept for `max_age` seconds (a day), and `max_rows` of them at most (a million);
    `max_payload` are bytes of JSON (1 MiB). `postgres_channel` is what hubs listen on
    ("pgfanout_events"). What is None stays as it is in a log that is there.
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
            raise ValueError("of kept events there has to be room for one at least")
        if self.max_payload is not None and not 0 < self.max_payload <= 64 * MAX_PAYLOAD:
            raise ValueError(f"the size of a payload is a number of bytes: above 0, {64 * MAX_PAYLOAD} at most")

    def script(self, publishers: Iterable[str] = (), readers: Iterable[str] = ()) -> str:
        """The SQL that installs it, as one statement that may be run again.

        It grants the named roles what publishing needs, and what listening, replaying and pruning need.
        """
        steps = [_STEP.format(number=number, step=self._filled(step)) for number, step in enumerate(_STEPS, 1)]
        return _SCRIPT.format(
            version=VERSION,
            lock=self._lock("install"),
            schema=self.name,
            steps="".join(steps),
            settings=", ".join(self._settings()),
            functions=self._filled("functions.sql"),
            grants="".join(f"    {grant};\n" for grant in self._grants(publishers, readers)),
        )

    def install(
        self, connection: psycopg.Connection[Any], publishers: Iterable[str] = (), readers: Iterable[str] = ()
    ) -> None:
        """Run the script. Raises psycopg's errors."""
        psycopg.Cursor(connection).execute(self.script(publishers, readers).encode())

    def _grants(self, publishers: Iterable[str], readers: Iterable[str]) -> list[str]:
        publishing = ", ".join(f"{self.name}.{function}" for function in _PUBLISHING)
        return [
            *self._granted(publishers, [f"EXECUTE ON FUNCTION {publishing}"]),
            *self._granted(
                readers,
                [
                    f"SELECT ON {self.name}.event, {self.name}.log",
                    f"EXECUTE ON FUNCTION {self.name}.prune(integer, double precision)",
                ],
            ),
        ]

    def _granted(self, roles: Iterable[str], rights: Sequence[str]) -> list[str]:
        names = [sql.Identifier(_check_quotable(role)).as_string(None) for role in roles]
        everything = [f"USAGE ON SCHEMA {self.name}", *rights]
        return [f"GRANT {right} TO {', '.join(names)}" for right in everything] if names else []

    def _filled(self, file: str) -> str:
        values = {"schema": self.name, "lock": self._lock("commit"), "prune_lock": self._lock("prune")}
        # What is left is filled in by the script, with what the log has.
        return re.sub("@([a-z_]+)@", lambda found: values.get(found.group(1), found.group()), _text(file))

    def _settings(self) -> Iterator[str]:
        yield f"version = {VERSION}"
        if self.postgres_channel is not None:
            yield f"postgres_channel = {sql.Literal(self.postgres_channel).as_string(None)}"
        if self.max_age is not None:
            yield f"max_age = interval '{self.max_age:.6f} seconds'"
        for name, value in (("max_rows", self.max_rows), ("max_payload", self.max_payload)):
            if value is not None:
                yield f"{name} = {value}"

    def _lock(self, purpose: str) -> str:
        """The number of an advisory lock: https://www.postgresql.org/docs/current/explicit-locking.html"""
        digest = hashlib.sha256(f"pgfanout {self.name} {purpose}".encode()).digest()
        return f"({int.from_bytes(digest[:8], 'big', signed=True)})::bigint"
