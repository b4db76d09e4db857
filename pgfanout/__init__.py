"""Live web pages from PostgreSQL NOTIFY: server-sent events for Flask and WSGI, in threads."""

from .backends.memory import MemoryHub
from .backends.postgres import History, PostgresHub
from .delivery.subscription import Subscription
from .errors import (
    HubClosedError,
    HubConfigurationError,
    HubTimeoutError,
    InvalidEventError,
    PayloadTooLargeError,
    PgFanoutError,
    TooManyOpenFilesError,
    TooManyStreamsError,
    TooManyStreamsForUserError,
)
from .event import CLOSE_EVENT, REFRESH_EVENT, Event
from .executor import Executor
from .hub import NotifyHub
from .stats import HubStats
from .streams import StreamLimiter
from .topic import TenantId

__all__ = [
    "CLOSE_EVENT",
    "REFRESH_EVENT",
    "Event",
    "Executor",
    "History",
    "HubClosedError",
    "HubConfigurationError",
    "HubStats",
    "HubTimeoutError",
    "InvalidEventError",
    "MemoryHub",
    "NotifyHub",
    "PayloadTooLargeError",
    "PgFanoutError",
    "PostgresHub",
    "StreamLimiter",
    "Subscription",
    "TenantId",
    "TooManyOpenFilesError",
    "TooManyStreamsError",
    "TooManyStreamsForUserError",
    "__version__",
]

__version__ = "0.1.0"
