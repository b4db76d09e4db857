"""The page's client as a file: its size, its digest, the headers it is served with."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

from pgfanout.static import PageClient, page_client

LIMIT = 8 * 1024


def without_comments(source: str) -> str:
    """The module without its comments. No string in it has what looks like one."""
    source = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    source = re.sub(r"(^|\s)//.*", "", source)
    return "\n".join(line for line in source.splitlines() if line.strip())


def test_it_is_small() -> None:
    code = without_comments(page_client().source.decode())
    assert "class Feed" in code
    assert "//" not in code
    assert len(code.encode()) < LIMIT


def test_it_imports_nothing() -> None:
    assert not re.search(r"^import|\bimport\(", without_comments(page_client().source.decode()), re.MULTILINE)


def test_the_digest_names_the_content() -> None:
    client = page_client()
    assert client.source == (resources.files("pgfanout.static") / "pgfanout.js").read_bytes()
    assert hashlib.sha256(client.source).hexdigest().startswith(client.digest)
    assert len(client.digest) == 16


def test_a_url_with_the_digest_is_kept_and_any_other_is_revalidated() -> None:
    client = PageClient(b"export {}", "0123456789abcdef")
    kept, old, bare = (dict(client.headers(version)) for version in ("0123456789abcdef", "fedcba9876543210", ""))
    assert kept["Cache-Control"] == "private, max-age=31536000, immutable"
    assert old["Cache-Control"] == bare["Cache-Control"] == "private, no-cache"
    assert {headers["ETag"] for headers in (kept, old, bare)} == {'"0123456789abcdef"'}
    assert kept["Content-Type"] == "text/javascript; charset=utf-8"
    assert kept["X-Content-Type-Options"] == "nosniff"


def test_its_types_come_with_it() -> None:
    assert "export class Feed" in (resources.files("pgfanout.static") / "pgfanout.d.ts").read_text()
