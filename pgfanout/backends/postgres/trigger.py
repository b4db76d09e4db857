"""A table's trigger: the SQL that makes each change of a row an event of the history."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from itertools import count
from typing import Final

from psycopg import sql

from ...topic import check_channel
from .schema import check_schema

__all__ = ["TableTrigger", "drop_script"]

_NAME_LIMIT: Final = 63
"""Bytes of UTF-8 in a PostgreSQL identifier."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class TableTrigger:
    """Publishes the changes of a table: each row that changes is one event of the history.

    Names are given as they are, without quotes: "sales.Order Items" is the table Order Items of the
    schema sales. A table without a schema is looked up as in any statement, when the script runs.
    `tenant` is a column of UUIDs (or of their text), `key` the columns that
    tell a tenant's rows apart and are never NULL.

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

    What is not seen: TRUNCATE; statements that name a partition, or a child table, instead of this table;
    virtual generated columns, which can't be named here. What fails the statement that writes: a row whose
    event the history refuses (a tenant that is no UUID, a payload above its limit), millions of rows at once
    (the server holds the events of a statement in memory, half a kilobyte each and more with rows), and a history
    that was removed before the trigger.
    """

    table: str
    tenant: str
    key: Sequence[str]
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
        if not self.key:
            raise ValueError("the key needs one column at least")
        if not isinstance(self.when, str) or "\0" in self.when:
            raise ValueError("the condition has to be a str without NUL characters")
        check_channel(self._channel)

    def script(self) -> str:
        """The SQL that makes the trigger, as one statement that may be run again."""
        names = _Names(self.table, self.schema)
        queries = {
            "inserted": self._published(self._rows("new_rows", "'insert' AS type")),
            "deleted": self._published(self._rows("old_rows", "'delete' AS type")),
            "updated": self._published(self._updated()),
        }
        return _filled("trigger.sql", {**names.values(), **queries})

    def drop_script(self) -> str:
        """The SQL that removes it, as one statement that may be run again."""
        return drop_script(self.table, self.schema)

    @property
    def _channel(self) -> str:
        return self.channel or _Names(self.table, self.schema).bare

    def _published(self, changes: str) -> str:
        """The call for what a query finds: rows of a type, a tenant, k1, k2, ... and p1, p2, ..."""
        values = ["type AS operation", f"{_object('k', self.key)} AS key"]
        if self.payload:
            values.append(f'{_object("p", self.payload)} AS "row"')
        return f"""\
{self.schema}.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT {_literal(self._channel)} AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT {", ".join(values)}) AS event
    ) AS payload
    FROM (
{changes}
    ) AS changes
    ORDER BY {", ".join([*_numbers("k", self.key), "type"])}
) AS events
HAVING count(*) > 0"""

    def _updated(self) -> str:
        """The rows of both sides, each beside the one that it was, without those that are the same.

        Images of rows can be compared (`*=`) whatever the types of their columns.
        """
        same = ", ".join(["tenant", *_numbers("k", self.key)])
        kind = "CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END"
        found = [
            f"{kind} AS type",
            same,
            *(
                f"CASE WHEN after.tenant IS NULL THEN before.{value} ELSE after.{value} END AS {value}"
                for value in _numbers("p", self.payload)
            ),
        ]
        return f"""\
SELECT {", ".join(found)}
FROM (
{self._rows("old_rows", f"{self._image('old_rows')} AS image")}
) AS before FULL JOIN (
{self._rows("new_rows", f"{self._image('new_rows')} AS image")}
) AS after USING ({same})
WHERE (before.image *= after.image) IS NOT TRUE"""

    def _image(self, rows: str) -> str:
        # The row as a whole is no list of its columns: a virtual one among them can't be read in a trigger.
        return f"ROW({', '.join(map(_identifier, self.columns))})" if self.columns else f"({rows}.*)::record"

    def _rows(self, rows: str, and_also: str) -> str:
        """The rows of one side that count."""
        tenant = _identifier(self.tenant)
        found = [
            and_also,
            f"{tenant}::uuid AS tenant",
            *_renamed("k", self.key),
            *_renamed("p", self.payload),
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
        function = _identifier(_short(f"{self._schema}_{self.bare}"))
        return {
            "schema": self._schema,
            "table": table,
            "target": _literal(table),
            "bare_table": _identifier(self.bare),
            "function": function,
            "function_text": _literal(function),
            **{
                f"on_{operation}": _identifier(_short(f"{self._schema}_{operation}"))
                for operation in ("insert", "update", "delete")
            },
        }


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a {kind} needs a name, not {name!r}")
    if len(name.encode()) > _NAME_LIMIT:
        raise ValueError(f"a {kind}'s name has at most {_NAME_LIMIT} bytes, not {name!r}")
    if '"' in name or _CONTROL.search(name):
        raise ValueError(f"a {kind}'s name is given as it is, without quotes and control characters, not {name!r}")


def _check_columns(option: str, columns: Sequence[str]) -> None:
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise ValueError(f"{option} has to be a sequence of columns' names, not {columns!r}")
    for name in columns:
        _check_name("column", name)
    if len(set(columns)) < len(columns):
        raise ValueError(f"{option} names a column twice")


def _short(name: str) -> str:
    """The name itself where PostgreSQL would keep it whole, else one that is cut and told apart by a digest."""
    data = name.encode()
    if len(data) <= _NAME_LIMIT:
        return name
    return f"{data[: _NAME_LIMIT - 13].decode(errors='ignore')}_{sha256(data).hexdigest()[:12]}"


def _identifier(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None).strip()


def _numbers(letter: str, columns: Sequence[str]) -> list[str]:
    """What the columns are called on their way, so that no name of the table's meets one of ours."""
    return [f"{letter}{number}" for number in range(1, len(columns) + 1)]


def _renamed(letter: str, columns: Sequence[str]) -> list[str]:
    return [f"{_identifier(name)} AS {number}" for number, name in zip(_numbers(letter, columns), columns, strict=True)]


def _object(letter: str, columns: Sequence[str]) -> str:
    """A JSON object of the columns, under their own names."""
    values = [
        f"{number} AS {_identifier(name)}" for number, name in zip(_numbers(letter, columns), columns, strict=True)
    ]
    return f"(SELECT to_json(columns.*) FROM (SELECT {', '.join(values)}) AS columns)"


def _filled(file: str, values: Mapping[str, str]) -> str:
    text = (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")
    given = "".join(values.values())
    # Ends each dollar quote's tag, so that nothing in the values ends the quote.
    mark = next(str(number) for number in count() if f"{number}$" not in given)
    return re.sub("@([a-z_]+)@", lambda found: {**values, "mark": mark}[found.group(1)], text)
