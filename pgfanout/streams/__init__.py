"""Server-sent events over WSGI: frames, the iterable that a server drains, caps, answers."""

from .endpoint import Answer, StreamEndpoint
from .limiter import StreamLimiter
from .threaded import ThreadedStream

__all__ = ["Answer", "StreamEndpoint", "StreamLimiter", "ThreadedStream"]
