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
from psycopg.pq import TransactionStatus

from ....topic import check_channel

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
"""Bytes of JSON that an event of the log may have, unless configured."""

_STEPS: Final = ("001_log.sql", "002_marks.sql")
"""What was done to the tables, version by version. A step that was released does not change any more."""

VERSION: Final = len(_STEPS)

REQUIRED: Final = 1
"""The oldest version of the tables that a hub of this release works with, so that workers may be replaced before it."""

REVISION: Final = 1
"""Of functions.sql. Each release that changes that file, or adds a step, counts it up. 0 is a history without one."""

IDENTIFIER_LIMIT: Final = 63
"""Bytes of UTF-8 in a PostgreSQL identifier."""

_NAME: Final = re.compile("(?!pg_)[a-z_][a-z0-9_]{0,62}")  # what begins with pg_ is PostgreSQL's own

# A name with one in it could end the quotes that the script stands in.
_DOLLAR_QUOTE: Final = re.compile(r"\$\w*\$")

_PATIENCE: Final = "1min"
"""How long a first installation waits for another one, unless the session has a `lock_timeout`."""

# One statement, so that it is done or not done as a whole, whatever runs it: psql, a migration tool, or the library.
# Nothing that others have put into a schema of the installer's path is found by it.
#
# Whether there is a table or a function is asked of the catalogs, which answer as of now. The row is read with the
# transaction's snapshot, which under REPEATABLE READ may be older than an installation that has just ended: the row is
# locked before anything is changed, so that PostgreSQL refuses an old one with 40001 (serialization_failure).
_SCRIPT: Final = """\
-- The history of pgfanout, version {version}. It may be run at any time, by several at once: it does what is missing.
DO $pgfanout$
DECLARE
    installed pg_catalog.record;
    current integer;
    notified pg_catalog.text;
    has_row boolean;
    is_there boolean;
    is_locked boolean := false;
    settings pg_catalog.record;
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    backslashes pg_catalog.text := pg_catalog.current_setting('standard_conforming_strings');
    patience pg_catalog.text := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('standard_conforming_strings', 'on', true);
    -- Once without a lock, for there may be nothing to do, and then with one. The first look is a query, since the
    -- session would remember what to_regclass has told it, and not hear of an installation that it then waits for.
    is_there := EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = '{schema}' AND relname = 'log'
    );
    LOOP
        SELECT 0 AS version, 0 AS revision INTO installed;
        has_row := false;
        IF is_there THEN
            installed.version := 1;  -- the only one without that function
            IF to_regprocedure('{schema}._installed()') IS NOT NULL THEN
                SELECT i.version, i.revision INTO STRICT installed FROM {schema}._installed() AS i;
            END IF;
            SELECT version, postgres_channel INTO current, notified FROM {schema}.log;
            has_row := FOUND;
            installed.version := coalesce(current, installed.version);
        END IF;
        EXIT WHEN is_locked
            OR has_row AND {only_looks} AND installed.version >= {version} AND installed.revision >= {revision};
        -- Any role may hold an advisory lock for as long as it likes. So only a first installation takes one, and does
        -- not wait for it without end. The table's lock takes rights on the table.
        IF NOT is_there THEN
            IF patience = '0' THEN
                PERFORM set_config('lock_timeout', '{patience}', true);
            END IF;
            BEGIN
                PERFORM pg_advisory_xact_lock({lock});
            EXCEPTION WHEN lock_not_available THEN
                RAISE EXCEPTION
                    'another session holds the advisory lock of the first installation into the schema {schema}'
                    USING ERRCODE = 'lock_not_available', HINT = 'Wait for an installation that is under way, or end'
                        ' that session, which SELECT pid FROM pg_locks WHERE locktype = ''advisory'' shows.'
                        ' Then run it again.';
            END;
            PERFORM set_config('lock_timeout', patience, true);
        END IF;
        is_there := to_regclass('{schema}.log') IS NOT NULL;
        IF is_there THEN
            LOCK TABLE {schema}.log IN SHARE UPDATE EXCLUSIVE MODE;
        END IF;
        is_locked := true;
    END LOOP;
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
IF has_row AND {spare} AND installed.version >= {version} AND installed.revision >= {revision} THEN
    IF installed.version > {version} OR installed.revision > {revision} THEN
        RAISE DEBUG 'the history in the schema {schema} is of a newer pgfanout, and is left alone';
    ELSE
        NULL;
{grants}    END IF;
ELSE
    IF installed.version > {version} THEN
        RAISE EXCEPTION 'the history in the schema {schema} is of version %, this is version {version}',
            installed.version USING HINT = 'Use the newer pgfanout.';
    ELSIF installed.revision > {revision} THEN
        RAISE EXCEPTION
            'the history in the schema {schema} has functions of revision %, these are of revision {revision}',
            installed.revision USING HINT = 'Use the newer pgfanout.';
    END IF;
    IF installed.version > 0 AND NOT has_row
        AND NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('{schema}.log'))
    THEN
        RAISE EXCEPTION 'the history was installed after this transaction had begun'
            USING ERRCODE = 'serialization_failure', HINT = 'Run it again, in a new transaction.';
    END IF;
    -- Locks in the order that publishing, pruning and deleting take them: pending, event, log.
    IF installed.version > 0 AND NOT has_row
        OR has_row AND NOT {spare} AND {channel} <> notified
    THEN
        -- A transaction that has published ends on the old channel, or before the log begins anew. One that publishes
        -- meanwhile waits, and finds what is new.
        LOCK TABLE {schema}.pending, {schema}.pending_many IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    IF installed.version BETWEEN 1 AND {version} - 1 THEN
        LOCK TABLE {schema}.event IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    IF has_row THEN
        PERFORM FROM {schema}.log FOR UPDATE;
    ELSIF installed.version > 0 THEN
        -- The row is gone: a copy of the schema alone, or TRUNCATE. Nothing tells any more which events are missing, so
        -- the log begins anew, with a number above all that were.
        INSERT INTO {schema}.log (version, pruned_to, prune_to) SELECT installed.version, number, number
        FROM setval('{schema}.number', greatest(
            pg_sequence_last_value('{schema}.number') + 1, (SELECT max(number) + 1 FROM {schema}.event),
            floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        )) AS number
        ON CONFLICT DO NOTHING;
        DELETE FROM {schema}.event;
    END IF;
{steps}
    UPDATE {schema}.log SET version = {version};
    IF NOT has_row OR NOT {spare} THEN
        UPDATE {schema}.log SET {settings};
    END IF;
    SELECT * INTO STRICT settings FROM {schema}.log;
EXECUTE replace(replace($functions$
{functions}$functions$,
        '@max_payload@', settings.max_payload::text), '@postgres_channel@', quote_literal(settings.postgres_channel));
{grants}END IF;
    PERFORM set_config('standard_conforming_strings', backslashes, true);
    PERFORM set_config('search_path', path, true);
END
$pgfanout$;
"""

_STEP: Final = """
IF installed.version < {number} THEN
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


def trigger_name(schema: str, part: str) -> str:
    """What a part of a table's trigger is called: cut, and told apart by a digest, where it would be too long."""
    data = f"{schema}_{part}".encode()
    if len(data) <= IDENTIFIER_LIMIT:
        return f"{schema}_{part}"
    return f"{data[: IDENTIFIER_LIMIT - 13].decode(errors='ignore')}_{hashlib.sha256(data).hexdigest()[:12]}"


def _set_transaction(connection: psycopg.Connection[Any]) -> None:
    """Make the transaction, of which this is the first statement, one for installing, whatever the defaults are."""
    psycopg.Cursor(connection).execute(b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE")


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
            raise ValueError("max_rows must be at least 1")
        if self.max_payload is not None and not 0 < self.max_payload <= 64 * MAX_PAYLOAD:
            raise ValueError(f"the size of a payload is a number of bytes: above 0, {64 * MAX_PAYLOAD} at most")

    def script(self, publishers: Iterable[str] = (), readers: Iterable[str] = (), *, repair: bool = True) -> str:
        """The SQL that installs it, as one statement that may be run again.

        It puts this release's functions in place and applies the settings. Without `repair` it leaves both alone
        where the database has this release's functions, or newer ones, and the settings where it has a log.
        It grants the named roles what publishing needs, and what listening, replaying and pruning need. It refuses
        a database that has newer functions, unless it leaves them alone.

        Under REPEATABLE READ or SERIALIZABLE it may fail with 40001 beside another installation: run it again.
        """
        grants = self._grants(publishers, readers)
        steps = [_STEP.format(number=number, step=self._filled(step)) for number, step in enumerate(_STEPS, 1)]
        return _SCRIPT.format(
            version=VERSION,
            revision=REVISION,
            lock=self._lock("install"),
            schema=self.name,
            patience=_PATIENCE,
            spare=str(not repair).lower(),
            only_looks=str(not repair and not grants).lower(),
            steps="".join(steps),
            channel=sql.Literal(self.postgres_channel).as_string(None) + "::text",
            settings=", ".join(self._settings()),
            functions=self._filled("functions.sql"),
            grants="".join(f"    {grant};\n" for grant in grants),
        )

    def install(
        self,
        connection: psycopg.Connection[Any],
        publishers: Iterable[str] = (),
        readers: Iterable[str] = (),
        *,
        repair: bool = False,
    ) -> None:
        """Run the script, in the connection's transaction if there is one, else in one that may write and sees what
        others have installed meanwhile, whatever the defaults are. Raises psycopg's errors.
        """
        script = self.script(publishers, readers, repair=repair).encode()
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            with connection.transaction():
                _set_transaction(connection)
                psycopg.Cursor(connection).execute(script)
        else:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                _set_transaction(connection)
            psycopg.Cursor(connection).execute(script)

    def _grants(self, publishers: Iterable[str], readers: Iterable[str]) -> list[str]:
        publishing = ", ".join(f"{self.name}.{function}" for function in _PUBLISHING)
        return [
            *self._granted(publishers, [f"EXECUTE ON FUNCTION {publishing}"]),
            *self._granted(
                readers,
                [
                    f"SELECT ON {self.name}.event, {self.name}.log, {self.name}.table_trigger",
                    f"EXECUTE ON FUNCTION {self.name}.prune(integer, double precision)",
                ],
            ),
        ]

    def _granted(self, roles: Iterable[str], rights: Sequence[str]) -> list[str]:
        names = [sql.Identifier(_check_quotable(role)).as_string(None) for role in roles]
        everything = [f"USAGE ON SCHEMA {self.name}", *rights]
        return [f"GRANT {right} TO {', '.join(names)}" for right in everything] if names else []

    def _filled(self, file: str) -> str:
        values = {
            "schema": self.name,
            "lock": self._lock("commit"),
            "version": str(VERSION),
            "revision": str(REVISION),
            "columns_trigger": f"'{trigger_name(self.name, 'columns')}'",
        }
        # What is left is filled in by the script, with what the log has.
        return re.sub("@([a-z_]+)@", lambda found: values.get(found.group(1), found.group()), _text(file))

    def _settings(self) -> Iterator[str]:
        yield f"version = {VERSION}"  # so that there is one at least
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
