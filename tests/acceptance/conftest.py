"""A real gunicorn with the plain application, on a real PostgreSQL."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import browser as browsers
from tests.support import nginx
from tests.support.gunicorn import GunicornServer
from tests.support.need import need
from tests.support.nginx import NginxServer
from tests.support.ports import free_port

from .apps.names import block

CONFIG = Path(__file__).parent / "apps" / "gunicorn.conf.py"

Serve = Callable[..., GunicornServer]


@pytest.fixture
def serve(fresh_database_url: str) -> Iterator[Serve]:
    """Starts gunicorn with the plain application; each server is stopped after the test."""
    with ExitStack() as stack:

        def start(
            app: str = "tests.acceptance.apps.plain:app",
            env: dict[str, str] | None = None,
            **options: Any,
        ) -> GunicornServer:
            options.setdefault("config", str(CONFIG))
            server = GunicornServer(app, env={"DATABASE_URL": fresh_database_url, **(env or {})}, **options)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def serve_board(serve: Serve) -> Serve:
    """Starts the example as `make demo` runs it, its workers apart."""

    def start(workers: int | None = None) -> GunicornServer:
        config = "flask_example/gunicorn.conf.py"
        return serve("flask_example:create_app()", config=config, threads=None, workers=workers, worker_class=None)

    return start


@pytest.fixture
def board(serve_board: Serve) -> GunicornServer:
    """The example; its database is prepared."""
    return serve_board()


@pytest.fixture
def connection(board: GunicornServer, fresh_database_url: str) -> Iterator[psycopg.Connection]:
    """Of somebody who changes the board's table without the application."""
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


Insert = Callable[[str], object]
MakeShop = Callable[[str, Mapping[str, str], Mapping[str, Path]], Serve]


@pytest.fixture
def make_shop(serve: Serve, tmp_path: Path, fresh_database_url: str) -> MakeShop:
    """Lays out the shop of a document: its `shop.py`, templates (by the names that the document has for them) and
    scripts. What it returns starts it, with settings as keywords."""

    def make(document: str, templates: Mapping[str, str], scripts: Mapping[str, Path]) -> Serve:
        for folder in ("static", "templates"):
            (tmp_path / folder).mkdir()
        for name, script in scripts.items():
            (tmp_path / "static" / name).symlink_to(script)
        for name, source in templates.items():
            text = block(document, f"{{# templates/{source}.html #}}")
            (tmp_path / "templates" / f"{name}.html").write_text(text)
        with psycopg.connect(fresh_database_url) as connection:
            connection.execute("CREATE TABLE orders (id serial, note text)")
        code = block(document, "# shop.py\n") + block(document, "# shop.py, continued\n")

        def start(**settings: Any) -> GunicornServer:
            made = "app = flask.Flask(__name__)\n"
            assert made in code
            lines = "".join(f"app.config[{name!r}] = {value!r}\n" for name, value in settings.items())
            (tmp_path / "shop.py").write_text(code.replace(made, made + lines))
            return serve("shop:app", env={"PGFANOUT_URL": fresh_database_url}, pythonpath=[tmp_path])

        return start

    return make


@pytest.fixture
def insert(fresh_database_url: str) -> Iterator[Insert]:
    """Adds an order to the shop and tells nobody."""
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield lambda note: connection.execute("INSERT INTO orders (note) VALUES (%s)", [note])


def show(page: Page, *, hidden: bool) -> None:
    """Hide the page's tab, or show it again, as far as its scripts can tell."""
    page.evaluate(
        "hidden => {"
        " Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange'));"
        "}",
        hidden,
    )


def post(url: str, **fields: str) -> None:
    """Send a form, to a view that answers nothing."""
    request = urllib.request.Request(url, urllib.parse.urlencode(fields).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204


_CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    binary = browsers.chromium_binary()
    need(binary, "no chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of its own; what its scripts fail at fails the test."""
    context = browser.new_context()
    context.set_default_timeout(20_000)
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert failures == []


@pytest.fixture(scope="session")
def firefox() -> Iterator[browsers.Browser]:
    """Debian's Firefox, headless."""
    need(not browsers.firefox_missing_reason(), browsers.firefox_missing_reason())
    with browsers.Firefox() as firefox:
        yield firefox


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def any_browser(request: pytest.FixtureRequest) -> browsers.Browser:
    """Each of the browsers."""
    if request.param == "chromium":
        return browsers.Chromium(request.getfixturevalue("browser"))
    firefox: browsers.Browser = request.getfixturevalue("firefox")
    return firefox


@pytest.fixture
def tab(any_browser: browsers.Browser) -> Iterator[browsers.Tab]:
    """A window in each of the browsers; what its scripts fail at fails the test."""
    tab = any_browser.tab()
    try:
        yield tab
        errors = tab.errors()
    finally:
        tab.close()
    assert errors == []


@pytest.fixture
def proxy() -> Callable[[str], NginxServer]:
    """Makes an nginx of the documented configuration in front of a server's URL, or "unix:" and a path."""
    need(not nginx.missing_reason(), nginx.missing_reason())

    def make(url: str) -> NginxServer:
        site = block("docs/deployment.md", "upstream app {")
        port = free_port()
        site = site.replace("127.0.0.1:8000", url if url.startswith("unix:") else urlsplit(url).netloc)
        site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
        return NginxServer(site, port=port)

    return make
