"""Who gets an event, and what comes next for each reader. No I/O, no thread of its own, no backend."""

__all__ = []
