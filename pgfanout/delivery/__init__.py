"""From an event to its readers: which of them get it, and what comes next for each. No I/O, no thread of its own, no backend."""

__all__ = []
