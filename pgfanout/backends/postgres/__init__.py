"""PostgreSQL: NOTIFY to send, LISTEN to receive."""

from .hub import PostgresHub
from .publisher import Executor

__all__ = ["Executor", "PostgresHub"]
