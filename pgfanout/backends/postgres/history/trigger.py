"""A table's trigger: the SQL that publishes each change of a row as an event of the history."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import count
from typing import Final

from psycopg import sql

from ....topic import NO_TENANT, check_channel
from .schema import IDENTIFIER_LIMIT, REVISION, check_schema, trigger_name

__all__ = ["TableTrigger", "drop_script"]

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class TableTrigger:
    """Publishes the changes of a table: each row that changes is one event of the history.

    Give names without quotes: "sales.Order Items" is the table Order Items of the schema sales. A table without a
    schema is looked up in the search path when the script runs. `tenant` is a column of any type: its text is the
    tenant. Without one, all events are for the tenant None. `key` names the columns that identify a row of a tenant.
    The default is the primary key. Other columns have to be NOT NULL, and some or all of them must have a unique index,
    with or without the tenant's column. The index may not be partial or have expressions.

    The event goes to the row's tenant on `channel`, by default the table's name. Its type is insert, update or delete.
    Its payload is {"operation": "update", "key": {"id": 42}}. With `payload`, the names of columns, it also has "row":
    their values after the change, or before a delete. The events of a statement come in the order of the key.

    Nothing is published for an update that leaves all `columns` (by default: the row) unchanged. A row whose tenant is
    NULL or not valid (empty, longer than 63 bytes, with a control character) counts as absent from the table, and is
    counted by the sequence `passed_over` of the history's schema. If the key or the tenant changes, the old one gets a
    delete and the new one an insert. `when` is an SQL condition on the columns. Rows for which it does not hold count
    as absent, too. So an update after which it begins to hold is an insert, and an update after which it no longer
    holds is a delete. Its search path is pg_catalog: qualify functions, types and operators from elsewhere.

    Any role that may write to the table publishes by writing. The trigger function is in the table's schema, belongs to
    the table's owner and runs with the owner's rights. The owner has to be a publisher of the history. The owner or a
    superuser runs the script. A table has one such trigger for each history: the next script replaces it.

    PostgreSQL refuses to drop or retype a column that is named here or that `when` reads. A column may be renamed, and
    the events keep its old name. If the history's schema or a column is dropped with CASCADE, the trigger is dropped,
    too, or stays and warns. If the trigger can't tell which rows have changed (a function of `when` was dropped, or
    fails for a row), each tenant of the statement's rows gets one update with the key null, and the writer gets a
    warning. If it can't publish at all (the owner is no longer a publisher), there is only the warning. The write
    succeeds in all these cases.

    Not published are: TRUNCATE; statements on a partition or a child table instead of this table; attaching and
    detaching partitions; changes applied by logical replication or with session_replication_role = replica; changes of
    virtual generated columns, which can't be named here.

    A write fails if the history refuses a row's event (a payload above its limit), or with millions of rows at once:
    the server holds a statement's events in memory, half a kilobyte each, and more with "row".
    """

    table: str
    tenant: str | None = None
    key: Sequence[str] = ()
    channel: str = ""
    columns: Sequence[str] = ()
    payload: Sequence[str] = ()
    when: str = ""
    schema: str = "pgfanout"

    def __post_init__(self) -> None:
        _Names(self.table, self.schema)
        if self.tenant is not None:
            _check_name("column", self.tenant)
        for option in ("key", "columns", "payload"):
            _check_columns(option, getattr(self, option))
        if not isinstance(self.when, str) or "\0" in self.when:
            raise ValueError("the condition has to be a str without NUL characters")
        check_channel(self._channel)

    def script(self) -> str:
        """Return the SQL that makes the trigger: one statement that may be run again."""
        values = {
            "tenant": _TENANT,
            "no_tenant": NO_TENANT,
            "tenants": _array([] if self.tenant is None else [self.tenant]),
            "passed_over": f"{_TENANT} IS NULL{self._condition}",
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
        """Return the SQL that removes the trigger: one statement that may be run again."""
        return drop_script(self.table, self.schema)

    @property
    def _channel(self) -> str:
        return self.channel or _Names(self.table, self.schema).bare

    def _events(self, changes: str) -> str:
        """Return the query for the events of `changes`, a query for type, tenant, k1, k2, ... and p1, p2, ..."""
        values = ["type AS operation", f"{_object(_KEY_VALUES)} AS key"]
        if self.payload:
            numbered = zip(_numbers(self.payload), self.payload, strict=True)
            values.append(f'{_object(", ".join(f"{p} AS {_identifier(name)}" for p, name in numbered))} AS "row"')
        return f"""\
SELECT {_literal(self._channel)} AS channel, tenant::text AS tenant, type, (
    SELECT to_json(event.*) FROM (SELECT {", ".join(values)}) AS event
) AS payload
FROM (
{changes}
) AS changes
ORDER BY {_KEY_NUMBERS}, type"""

    def _updated(self) -> str:
        """Return the query for the changes of an update: it joins the rows before and after, without equal ones.

        Images of rows can be compared (`*=`) whatever the types of their columns. `place` is 1, unless the key has lost
        its unique index. It makes each row match at most one other even then.
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
        place = f"row_number() OVER (PARTITION BY {_TENANT}, {_KEY_COLUMNS}) AS place"
        return self._rows(rows, f"{self._image(rows)} AS image, {place}")

    def _image(self, rows: str) -> str:
        # The whole row, not a list of all columns: a trigger can't read a virtual column.
        return f"ROW({', '.join(map(_identifier, self.columns))})" if self.columns else f"({rows}.*)::record"

    def _rows(self, rows: str, and_also: str) -> str:
        """Return the query for the rows of one side that have a tenant and fulfil the condition."""
        numbered = zip(self.payload, _numbers(self.payload), strict=True)
        found = [
            and_also,
            f"{_TENANT} AS tenant",
            _KEY_RENAMED,
            *(f"{_identifier(name)} AS {p}" for name, p in numbered),
        ]
        return f"SELECT {', '.join(found)} FROM {rows} WHERE {_TENANT} IS NOT NULL{self._condition}"

    @property
    def _condition(self) -> str:
        # On its own line, since it may end with a comment.
        return f" AND (\n{self.when}\n)" if self.when.strip() else ""


def drop_script(table: str, schema: str = "pgfanout") -> str:
    """Return the SQL that removes a table's trigger, whatever its options are. Raise `ValueError`."""
    return _filled("trigger_drop.sql", _Names(table, schema).values())


class _Names:
    """The quoted names of a trigger's parts. `bare` is the table's name without schema and quotes."""

    def __init__(self, table: str, schema: str) -> None:
        self._schema = check_schema(schema)
        self._parts = table.split(".", 1) if isinstance(table, str) else [table]
        for part in self._parts:
            _check_name("table", part)
        self.bare = self._parts[-1]

    def values(self) -> dict[str, str]:
        """Return the names by the placeholders of the scripts."""
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
        raise ValueError(f"give a {kind}'s name without quotes and control characters, not {name!r}")


def _check_columns(option: str, columns: Sequence[str]) -> None:
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise ValueError(f"{option} has to be a sequence of column names, not {columns!r}")
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
    """Return aliases for the columns of the payload, so that no column of the table has the name of one of ours."""
    return [f"p{number}" for number in range(1, len(columns) + 1)]


def _object(values: str) -> str:
    """Return the SQL for a JSON object of the columns under their own names."""
    return f"(SELECT to_json(columns.*) FROM (SELECT {values}) AS columns)"


# Placeholders in strings that the script executes: for a row's tenant, which is NULL if it is not valid, and for lists
# of the key's columns. The script looks at the table when it runs.
_TENANT: Final = "\0tenant\0"
_KEY_COLUMNS: Final = "\0key_columns\0"
_KEY_NUMBERS: Final = "\0key_numbers\0"
_KEY_RENAMED: Final = "\0key_renamed\0"
_KEY_VALUES: Final = "\0key_values\0"


def _filled(file: str, values: Mapping[str, str]) -> str:
    text = (resources.files(__package__) / "sql" / file).read_text(encoding="utf-8")
    given = "".join(values.values())
    # At the end of each dollar quote's tag, so that no value can end the quote.
    mark = next(str(number) for number in count() if f"{number}$" not in given)
    text = re.sub("@([a-z_]+)@", lambda found: {**values, "mark": mark}[found.group(1)], text)
    return re.sub("\0([a-z_]+)\0", rf"$text_{mark}$ || \1 || $text_{mark}$", text)
