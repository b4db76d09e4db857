"""PageClient: the JavaScript module for pages, as a web framework serves it."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["PageClient", "page_client"]


@dataclass(frozen=True)
class PageClient:
    """The module `pgfanout.js`."""

    source: bytes
    digest: str
    """Names the content: 16 hexadecimal digits. Use it as the ETag, and as the `v` of the module's URL."""

    def headers(self, version: str = "") -> list[tuple[str, str]]:
        """Return the headers of a response. `version` is the `v` of the request's URL, or "".

        A URL with the right digest may be cached for a year. Any other one, such as that of an older release in a
        rolling deploy, has to be revalidated. Neither is for shared caches, since frameworks may add a visitor's
        session cookie to any response.
        """
        current = version == self.digest
        return [
            ("Content-Type", "text/javascript; charset=utf-8"),
            ("Cache-Control", "private, max-age=31536000, immutable" if current else "private, no-cache"),
            ("ETag", f'"{self.digest}"'),
            ("X-Content-Type-Options", "nosniff"),
        ]


@functools.cache
def page_client() -> PageClient:
    """Return the module that comes with this package. Read its file at the first call."""
    source = resources.files(__package__).joinpath("pgfanout.js").read_bytes()
    return PageClient(source, hashlib.sha256(source).hexdigest()[:16])
