"""From an event to its readers: which get it, and what comes next for each. No I/O, no threads, no backend."""

__all__ = []
