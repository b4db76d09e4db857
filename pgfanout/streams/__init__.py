"""Server-sent events over WSGI: frames, the iterable that a server drains, caps, answers."""

from .endpoint import Answer, StreamEndpoint
from .limiter import StreamLimiter
from .stream import EventStream

__all__ = ["Answer", "EventStream", "StreamEndpoint", "StreamLimiter"]
