"""The types of the page's client, checked by TypeScript."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import pgfanout.static
from tests.support import npm

STATIC = Path(pgfanout.static.__file__).parent
OPTIONS = ("--noEmit", "--strict", "--target", "es2022", "--lib", "es2023,dom,dom.iterable", "--module", "esnext")

USE = """
import { Feed, type FeedStatus } from "./pgfanout.js";

interface Order { id: number }

const feed = new Feed<Order[], Order>({
  url: "/events",
  types: ["order.updated"],
  load: async (signal) => fetch("/orders", { signal }),
  onState: (orders) => orders.map((order) => order.id),
  onEvent: (type, order) => `${type} ${order.id}`,
  onStatus: (status: FeedStatus) => document.title = status,
});
feed.open();
feed.close();
new Feed({ url: "/events", types: "order.updated", shared: "user-7", cursor: null, load: () => location.reload() });

// @ts-expect-error: load is missing
new Feed({ url: "/events" });
// @ts-expect-error: a key is text
new Feed({ url: "/events", load: () => 1, shared: true });
// @ts-expect-error: there is no such option
new Feed({ url: "/events", load: () => 1, onRefresh: () => {} });
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder with the client, beside TypeScript."""
    folder = npm.install("typescript@5").parent
    for name in ("pgfanout.js", "pgfanout.d.ts"):
        shutil.copy(STATIC / name, folder)
    return folder


def complaints(folder: Path, *arguments: str) -> str:
    command = [str(folder / "node_modules" / ".bin" / "tsc"), *OPTIONS, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100).stdout


@pytest.mark.slow
def test_the_module_is_well_typed(folder: Path) -> None:
    assert complaints(folder, "--allowJs", "--checkJs", "pgfanout.js") == ""


@pytest.mark.slow
def test_a_page_in_typescript_is_checked(folder: Path) -> None:
    (folder / "page.ts").write_text(USE)
    assert complaints(folder, "page.ts") == ""
