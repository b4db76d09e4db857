"""Live updates for Django under WSGI. Put "pgfanout.django" into INSTALLED_APPS and call these functions."""

from .live import close, cursor, get_hub, publish, publish_many, stream
from .views import healthz

__all__ = ["close", "cursor", "get_hub", "healthz", "publish", "publish_many", "stream"]
