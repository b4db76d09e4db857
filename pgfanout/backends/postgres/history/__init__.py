"""The history of PostgreSQL's hub: its settings, its schema, and how it is read."""

from .settings import History

__all__ = ["History"]
