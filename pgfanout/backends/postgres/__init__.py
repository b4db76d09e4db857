"""PostgreSQL: NOTIFY to send, LISTEN to receive."""

from .history import History
from .hub import PostgresHub

__all__ = ["History", "PostgresHub"]
