"""The client for pages: one ES module, its types, and how to serve it without Flask or Django."""

from .client import PageClient, page_client

__all__ = ["PageClient", "page_client"]
