"""A table's trigger: the SQL that makes each change of a row an event of the history."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import count
from typing import Final

from psycopg import sql

from ....topic import check_channel
from .schema import IDENTIFIER_LIMIT, REVISION, check_schema, trigger_name

__all__ = ["TableTrigger", "drop_script"]

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class TableTrigger:
    """Publishes the changes of a table: each row that changes is one event of the history.

    Names are given as they are, without quotes: "sales.Order Items" is the table Order Items of the
    schema sales. A table without a schema is looked up as in any statement, when the script runs.
    `tenant` is a column of the type uuid, or of a domain over it. `key` names the columns that tell a
    tenant's rows apart: the primary key unless given, else columns that are NOT NULL and have a unique
    index (on all of them or some, with or without the tenant's column; not partial, without expressions).

    The event goes to `channel`, the table's own name if it is empty, of the row's tenant. Its type is
    insert, update or delete, its payload {"operation": "update", "key": {"id": 42}}; with `payload`,
    the names of columns, also "row", which has their values after the change, or before a delete.
    Events of one statement come in the order of the key.

    Nothing is published for a row without a tenant, nor for an update that leaves all the `columns`
    as they were (the whole row, when none are named). Where the key or the tenant changes, the old one
    gets a delete and the new one an insert. `when` is a condition in SQL on the columns: rows for which
    it does not hold are treated as if they were not in the table, so an update by which it begins to
    hold is an insert, and one by which it ends is a delete. It is evaluated with the search path
    pg_catalog: functions, types and operators from elsewhere have to be qualified.

    Any role that may write the table publishes by that. The trigger function lies in the table's schema and
    belongs to the table's owner, with whose rights it runs, and who has to be a publisher of the history.
    The script is for that role or a superuser to run. A table has one such trigger for each history:
    the script of another one replaces it.

    PostgreSQL refuses to drop or retype a column that is named here or read by `when`. A column that is renamed is
    followed; the events keep its old name. With the schema of the history, or a column that is dropped with CASCADE,
    the trigger goes as well, or stays and warns. When the trigger can't tell what has changed (a function of `when`
    was dropped, or fails for a row), each tenant of the statement's rows gets one update with the key null, and the
    writer a warning; where it can't even publish (the owner is no publisher any more), a warning alone. The write
    goes on in each case.

    What is not seen: TRUNCATE; statements that name a partition, or a child table, instead of this table; partitions
    that are attached or detached; what logical replication applies, and what is written with
    session_replication_role = replica; virtual generated columns, which can't be named here.
    What fails the statement that writes: a row whose event the history refuses (a payload above its limit), and
    millions of rows at once (the server holds the events of a statement in memory, half a kilobyte each and more
    with rows).
    """

    table: str
    tenant: str
    key: Sequence[str] = ()
    channel: str = ""
    columns: Sequence[str] = ()
    payload: Sequence[str] = ()
    when: str = ""
    schema: str = "pgfanout"

    def __post_init__(self) -> None:
        _Names(self.table, self.schema)
        _check_name("column", self.tenant)
        for option in ("key", "columns", "payload"):
            _check_columns(option, getattr(self, option))
        if not isinstance(self.when, str) or "\0" in self.when:
            raise ValueError("the condition has to be a str without NUL characters")
        check_channel(self._channel)

    def script(self) -> str:
        """The SQL that makes the trigger, as one statement that may be run again."""
        values = {
            "tenant": _literal(self.tenant),
            "tenant_column": _identifier(self.tenant),
            "key": _array(self.key),
            "named": _array([*self.columns, *self.payload]),
            "when": self.when,
            "revision": str(REVISION),
            "options": _literal(json.dumps({**vars(self), "revision": REVISION})),
            "channel": _literal(self._channel),
            "inserted": self._events(self._rows("new_rows", "'insert' AS type")),
            "deleted": self._events(self._rows("old_rows", "'delete' AS type")),
            "updated": self._events(self._updated()),
        }
        return _filled("trigger.sql", {**_Names(self.table, self.schema).values(), **values})

    def drop_script(self) -> str:
        """The SQL that removes it, as one statement that may be run again."""
        return drop_script(self.table, self.schema)

    @property
    def _channel(self) -> str:
        return self.channel or _Names(self.table, self.schema).bare

    def _events(self, changes: str) -> str:
        """What the rows of a query are published as: rows of a type, a tenant, k1, k2, ... and p1, p2, ..."""
        values = ["type AS operation", f"{_object(_KEY_VALUES)} AS key"]
        if self.payload:
            numbered = zip(_numbers(self.payload), self.payload, strict=True)
            values.append(f'{_object(", ".join(f"{p} AS {_identifier(name)}" for p, name in numbered))} AS "row"')
        return f"""\
SELECT {_literal(self._channel)} AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT {", ".join(values)}) AS event
) AS payload
FROM (
{changes}
) AS changes
ORDER BY {_KEY_NUMBERS}, type"""

    def _updated(self) -> str:
        """The rows of both sides, each beside the one that it was, without those that are the same.

        Images of rows can be compared (`*=`) whatever the types of their columns. `place` is 1, unless the key has lost
        its unique index: then each row still meets one other at most.
        """
        same = f"tenant, {_KEY_NUMBERS}"
        kind = "CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END"
        found = [
            f"{kind} AS type",
            same,
            *(
                f"CASE WHEN after.tenant IS NULL THEN before.{value} ELSE after.{value} END AS {value}"
                for value in _numbers(self.payload)
            ),
        ]
        return f"""\
SELECT {", ".join(found)}
FROM (
{self._side("old_rows")}
) AS before FULL JOIN (
{self._side("new_rows")}
) AS after USING ({same}, place)
WHERE (before.image *= after.image) IS NOT TRUE"""

    def _side(self, rows: str) -> str:
        place = f"row_number() OVER (PARTITION BY {_identifier(self.tenant)}, {_KEY_COLUMNS}) AS place"
        return self._rows(rows, f"{self._image(rows)} AS image, {place}")

    def _image(self, rows: str) -> str:
        # The row as a whole is no list of its columns: a virtual one among them can't be read in a trigger.
        return f"ROW({', '.join(map(_identifier, self.columns))})" if self.columns else f"({rows}.*)::record"

    def _rows(self, rows: str, and_also: str) -> str:
        """The rows of one side that count."""
        tenant = _identifier(self.tenant)
        numbered = zip(self.payload, _numbers(self.payload), strict=True)
        found = [
            and_also,
            f"{tenant}::uuid AS tenant",
            _KEY_RENAMED,
            *(f"{_identifier(name)} AS {p}" for name, p in numbered),
        ]
        # On lines of its own: it may end with a comment.
        condition = f" AND (\n{self.when}\n)" if self.when.strip() else ""
        return f"SELECT {', '.join(found)} FROM {rows} WHERE {tenant} IS NOT NULL{condition}"


def drop_script(table: str, schema: str = "pgfanout") -> str:
    """The SQL that removes a table's trigger, whatever it is made of. Raises `ValueError`."""
    return _filled("trigger_drop.sql", _Names(table, schema).values())


class _Names:
    """What the trigger's parts are called, quoted; `bare` is the table's own name as it is."""

    def __init__(self, table: str, schema: str) -> None:
        self._schema = check_schema(schema)
        self._parts = table.split(".", 1) if isinstance(table, str) else [table]
        for part in self._parts:
            _check_name("table", part)
        self.bare = self._parts[-1]

    def values(self) -> dict[str, str]:
        """By the placeholders of the scripts."""
        table = ".".join(map(_identifier, self._parts))
        function = _identifier(trigger_name(self._schema, self.bare))
        return {
            "schema": self._schema,
            "target": _literal(table),
            "on_columns_text": _literal(trigger_name(self._schema, "columns")),
            "function_text": _literal(function),
            **{
                f"on_{part}_sql": _literal(_identifier(trigger_name(self._schema, part)))
                for part in ("insert", "update", "delete", "columns")
            },
        }


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a {kind} needs a name, not {name!r}")
    if len(name.encode()) > IDENTIFIER_LIMIT:
        raise ValueError(f"a {kind}'s name has at most {IDENTIFIER_LIMIT} bytes, not {name!r}")
    if '"' in name or _CONTROL.search(name):
        raise ValueError(f"a {kind}'s name is given as it is, without quotes and control characters, not {name!r}")


def _check_columns(option: str, columns: Sequence[str]) -> None:
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise ValueError(f"{option} has to be a sequence of columns' names, not {columns!r}")
    for name in columns:
        _check_name("column", name)
    if len(set(columns)) < len(columns):
        raise ValueError(f"{option} names a column twice")


def _identifier(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None).strip()


def _array(names: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(_literal, names))}]::text[]"


def _numbers(columns: Sequence[str]) -> list[str]:
    """What columns of the payload are called on their way, so that no name of the table's meets one of ours."""
    return [f"p{number}" for number in range(1, len(columns) + 1)]


def _object(values: str) -> str:
    """A JSON object of the columns, under their own names."""
    return f"(SELECT to_json(columns.*) FROM (SELECT {values}) AS columns)"


# The key is known when the script runs. In its strings that make statements these stand for lists of the key's columns.
_KEY_COLUMNS: Final = "\0key_columns\0"
_KEY_NUMBERS: Final = "\0key_numbers\0"
_KEY_RENAMED: Final = "\0key_renamed\0"
_KEY_VALUES: Final = "\0key_values\0"


def _filled(file: str, values: Mapping[str, str]) -> str:
    text = (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")
    given = "".join(values.values())
    # Ends each dollar quote's tag, so that nothing in the values ends the quote.
    mark = next(str(number) for number in count() if f"{number}$" not in given)
    text = re.sub("@([a-z_]+)@", lambda found: {**values, "mark": mark}[found.group(1)], text)
    return re.sub("\0([a-z_]+)\0", rf"$text_{mark}$ || \1 || $text_{mark}$", text)
