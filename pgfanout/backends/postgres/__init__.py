"""PostgreSQL: NOTIFY to send, LISTEN to receive."""

from .history import History
from .hub import PostgresHub
from .publisher import Executor

__all__ = ["Executor", "History", "PostgresHub"]
