"""Calls a function after the commit of an executor's transaction, for a hub that has no transactions of its own.

Django has `on_commit` for this. With SQLAlchemy, pending calls belong to a transaction object, and vanish with it.
Events of the session or connection lead to them. A listener can't remove itself while SQLAlchemy calls it. So listeners
stay as long as their session or connection, and do nothing for a transaction without pending calls.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from ..executor import Kind, bind_of

__all__ = ["after_commit"]

_Call: TypeAlias = Callable[[], object]

_Savepoint: TypeAlias = weakref.ref[Any] | None
"""The innermost savepoint that a call was made in. A strong reference would keep its transaction in `_pending`."""

_pending: weakref.WeakKeyDictionary[Any, list[tuple[_Savepoint, _Call]]] = weakref.WeakKeyDictionary()
"""For each outermost transaction its calls, in their order."""


def _savepoint(transaction: Any) -> _Savepoint:
    return None if transaction is None else weakref.ref(transaction)


def after_commit(kind: Kind, executor: Any, call: _Call) -> None:
    """Call a function after the commit of the executor's transaction.

    Do not call it if the transaction rolls back, also to a savepoint. Call it at once if there is no transaction, or
    nothing tells when it ends.

    `kind` and `executor` are what `identify` returns. A session is flushed. Raise the executor's errors.
    """
    if kind is Kind.SESSION:
        bind_of(executor)  # raises TypeError
        executor.flush()
        if _is_autocommit(executor.connection()):
            call()
        else:
            _after_session(executor, call)
    elif kind is Kind.SQLALCHEMY:
        if not executor.in_transaction():
            executor.begin()  # as its own execute does
        if _is_autocommit(executor):
            call()
        else:
            _after_connection(executor, call)
    elif kind is Kind.DJANGO and executor.in_atomic_block:
        executor.on_commit(call)
    else:
        call()


def _is_autocommit(connection: Any) -> bool:
    """Whether a connection of SQLAlchemy commits each statement."""
    of_engine = getattr(connection.dialect, "_on_connect_isolation_level", None)
    level = connection.get_execution_options().get("isolation_level", of_engine)
    return bool(level == "AUTOCOMMIT")


def _listen(target: Any, **listeners: Callable[..., object]) -> None:
    event = sys.modules["sqlalchemy.event"]
    for name, listener in listeners.items():
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)


def _run(calls: list[tuple[_Savepoint, _Call]]) -> None:
    for _, call in calls:
        call()


# Sessions.


def _after_session(session: Any, call: _Call) -> None:
    calls = _pending.setdefault(session.get_transaction(), [])
    calls.append((_savepoint(session.get_nested_transaction()), call))
    _listen(session, after_commit=_session_committed, after_transaction_end=_session_transaction_ended)


def _session_committed(session: Any) -> None:
    """The innermost transaction has committed. A savepoint's calls become those of the transaction around it."""
    root, nested = session.get_transaction(), session.get_nested_transaction()
    if nested is None:
        _run(_pending.pop(root, []))
    elif calls := _pending.get(root):
        within = _savepoint(None if nested.parent is root else nested.parent)
        calls[:] = [(within if inner == _savepoint(nested) else inner, call) for inner, call in calls]


def _session_transaction_ended(session: Any, transaction: Any) -> None:
    """What it has left was not committed."""
    root = transaction
    while root.parent is not None:
        root = root.parent
    if root is transaction:
        _pending.pop(root, None)
    elif calls := _pending.get(root):
        calls[:] = [(inner, call) for inner, call in calls if inner != _savepoint(transaction)]


# Connections.


def _after_connection(connection: Any, call: _Call) -> None:
    root = connection.get_transaction()
    calls = _pending.setdefault(root, [])
    if not calls:
        _call_after_commit(connection, root)
    _pass_on_released(connection)
    calls.append((_savepoint(connection.get_nested_transaction()), call))
    _listen(
        connection,
        savepoint=_pass_on_released,
        rollback_savepoint=_savepoint_rolled_back,
        rollback=_connection_rolled_back,
        rollback_twophase=_connection_rolled_back,
    )


def _call_after_commit(connection: Any, root: Any) -> None:
    """Run the calls of a connection's transaction after its commit.

    SQLAlchemy's event `commit` comes before the commit, which may still fail. So this replaces the method that commits,
    on this one object, until the end of the transaction.
    """
    name = "_commit_twophase_impl" if hasattr(root, "xid") else "_commit_impl"
    commit = getattr(connection, name)

    def commit_and_run(*args: Any) -> None:
        _forget_commit(connection)
        commit(*args)
        _run(_pending.pop(root, []))

    setattr(connection, name, commit_and_run)


def _forget_commit(connection: Any) -> None:
    for name in ("_commit_impl", "_commit_twophase_impl"):
        connection.__dict__.pop(name, None)


def _pass_on_released(connection: Any, *_: Any) -> None:
    """Give the calls of released savepoints to the transaction that is the innermost one now: the one around them.

    It is called before another savepoint begins. Calls of savepoints that were rolled back are gone already.
    """
    if calls := _pending.get(connection.get_transaction()):
        innermost = _savepoint(connection.get_nested_transaction())
        calls[:] = [(innermost if _is_released(inner) else inner, call) for inner, call in calls]


def _is_released(savepoint: _Savepoint) -> bool:
    if savepoint is None:
        return False
    transaction = savepoint()
    return transaction is None or not transaction.is_active


def _savepoint_rolled_back(connection: Any, name: str, *_: Any) -> None:
    """Drop the calls of a savepoint and of those within it. SQLAlchemy still takes these for open."""
    _pass_on_released(connection)
    gone = []
    savepoint = connection.get_nested_transaction()
    while savepoint is not None:
        gone.append(_savepoint(savepoint))
        savepoint = None if savepoint._savepoint == name else savepoint._previous_nested
    if calls := _pending.get(connection.get_transaction()):
        calls[:] = [(inner, call) for inner, call in calls if inner not in gone]


def _connection_rolled_back(connection: Any, *_: Any) -> None:
    _forget_commit(connection)
    if (root := connection.get_transaction()) is not None:  # it is None if SQLAlchemy could not begin one
        _pending.pop(root, None)
