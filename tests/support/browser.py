"""Real browsers, headless, behind one small interface, so that the same test of a page runs in each."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import warnings
from types import TracebackType
from typing import Any, Protocol

from playwright.sync_api import Browser as PlaywrightBrowser
from playwright.sync_api import Page

from . import processes
from .ports import LOOPBACK, free_port
from .processes import session, spawn
from .wait import eventually

__all__ = ["Browser", "Chromium", "Firefox", "Tab", "chromium_binary", "firefox_missing_reason", "shows", "text"]

LIMIT = 30.0
_START_LIMIT = 120.0


class Tab(Protocol):
    """A window of a browser, with cookies and connections of its own where the browser can do that."""

    def open(self, url: str) -> None:
        """Load a page, and wait until it is loaded."""

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as far as JSON can carry it. It finds properties of the
        window, not what a script has declared with `const` or `let`."""

    def errors(self) -> list[str]:
        """What the page's scripts have failed at."""

    def close(self) -> None:
        """Close the window, and its connections with it."""


class Browser(Protocol):
    """A browser that runs."""

    name: str

    def tab(self, beside: Tab | None = None) -> Tab:
        """A new window. Beside another one it shares all that tabs of a visitor share: cookies, locks, channels."""


def text(tab: Tab, selector: str) -> str:
    """The text of the first element that a CSS selector finds."""
    found: str = tab.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def shows(tab: Tab, selector: str, expected: str, timeout: float = LIMIT) -> None:
    """Wait until that is the element's text."""

    def check() -> bool:
        seen = text(tab, selector)
        assert seen == expected, f"{selector} shows {seen!r}, not {expected!r}"
        return True

    eventually(check, timeout, interval=0.05)


def chromium_binary() -> str:
    """Debian's Chromium; empty when there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or ""


class Chromium:
    """A Chromium that playwright has started."""

    name = "chromium"

    def __init__(self, browser: PlaywrightBrowser) -> None:
        self._browser = browser

    def tab(self, beside: Tab | None = None) -> Tab:
        if isinstance(beside, _ChromiumTab):
            return _ChromiumTab(beside.page.context.new_page(), alone=False)
        return _ChromiumTab(self._browser.new_context().new_page())


class _ChromiumTab:
    def __init__(self, page: Page, *, alone: bool = True) -> None:
        self.page = page
        self._alone = alone
        self._errors: list[str] = []
        page.on("pageerror", lambda error: self._errors.append(str(error)))

    def open(self, url: str) -> None:
        self.page.goto(url)

    def run(self, expression: str) -> Any:
        return self.page.evaluate(f"() => ({expression})")

    def errors(self) -> list[str]:
        return self._errors

    def close(self) -> None:
        if self._alone:
            self.page.context.close()
        else:
            self.page.close()


def _firefox_binary() -> str:
    return shutil.which("firefox-esr") or shutil.which("firefox") or ""


def firefox_missing_reason() -> str:
    """Why no Firefox can be driven here; empty when one can."""
    if not _firefox_binary():
        return "no firefox is installed"
    if importlib.util.find_spec("marionette_driver") is None:
        return "marionette_driver is not installed"
    return ""


def _marionette() -> Any:
    """The module, which need not be installed. What it imports gives warnings of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("marionette_driver.marionette")


# Firefox itself sets what automation needs once Marionette runs. These count before that.
_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage": "about:blank",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "termsofuse.bypassNotification": True,
    "toolkit.telemetry.server": "data:,",
}

_SCRIPT_ERRORS = """
const errors = Services.console.getMessageArray().filter(
    (message) => message instanceof Ci.nsIScriptError
        && message.category === "content javascript"
        && !(message.flags & Ci.nsIScriptError.warningFlag)
);
return errors.map((error) => error.errorMessage);
"""


class Firefox:
    """Debian's Firefox, driven by its own remote protocol, Marionette. `with` starts and ends it."""

    name = "firefox"

    def __init__(self) -> None:
        self._driver: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Firefox:
        home, port = session.directory("firefox"), free_port()
        preferences = {**_PREFERENCES, "marionette.port": port}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
        (home / "user.js").write_text("".join(lines))
        command = [_firefox_binary(), "--marionette", "--remote-allow-system-access", "--headless", "--no-remote"]
        env = {**os.environ, "HOME": str(home), "MOZ_CRASHREPORTER_DISABLE": "1"}
        with open(home / "log", "wb") as log:
            self._process = spawn([*command, "--profile", str(home)], log=log, env=env, cwd=home)
        try:
            eventually(lambda: self._accepts(port), _START_LIMIT)  # the driver's own wait leaves sockets open
            self._driver = _marionette().Marionette(
                host=LOOPBACK, port=port, socket_timeout=_START_LIMIT, startup_timeout=_START_LIMIT
            )
            self._driver.start_session()
            self._home = self._driver.current_window_handle
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._driver is not None:
            self._driver.cleanup()
        processes.kill_tree(self._process)

    def _accepts(self, port: int) -> bool:
        assert self._process is not None and self._process.poll() is None, "firefox ended at its start"
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    def tab(self, beside: Tab | None = None) -> Tab:
        return _FirefoxTab(self._driver, self._home)


class _FirefoxTab:
    def __init__(self, driver: Any, home: str) -> None:
        self._driver = driver
        self._home = home
        self._handle = driver.open(type="tab", focus=True)["handle"]
        driver.switch_to_window(self._handle)
        with driver.using_context("chrome"):
            driver.execute_script("Services.console.reset();")

    def open(self, url: str) -> None:
        self._driver.switch_to_window(self._handle)
        self._driver.navigate(url)

    def run(self, expression: str) -> Any:
        self._driver.switch_to_window(self._handle)
        return self._driver.execute_script(f"return ({expression});", sandbox=None)

    def errors(self) -> list[str]:
        with self._driver.using_context("chrome"):
            errors: list[str] = self._driver.execute_script(_SCRIPT_ERRORS)
        return errors

    def close(self) -> None:
        self._driver.switch_to_window(self._handle)
        self._driver.close()
        self._driver.switch_to_window(self._home)
