"""Detached streams: their connections are taken over from the server, and one thread writes all of them."""

from .stream import DetachedStream, are_moving, reason_to_stay

__all__ = ["DetachedStream", "are_moving", "reason_to_stay"]
