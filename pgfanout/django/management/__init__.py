"""Where Django looks for commands."""

__all__ = []
