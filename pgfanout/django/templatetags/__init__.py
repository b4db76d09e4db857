"""Where Django looks for template tags."""

__all__ = []
