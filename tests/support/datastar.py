"""Datastar, the script, for pages in browsers, downloaded once for the session.

npm has no release of it that knows `datastar-patch-elements`. The package starhtml of PyPI carries Datastar 1.0.1.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import zipfile
from pathlib import Path

from .need import need
from .processes import session

_PACKAGE = "starhtml==0.7.0"
_FILE = "starhtml/static/js/datastar-core.js"
_LIMIT = 120.0


def script() -> Path:
    """Return the path of the script. Skip the test if it can't be downloaded."""
    path = _download()
    need(path is not None, f"pip can't download {_PACKAGE}, which carries Datastar")
    assert path is not None
    return path


@functools.cache
def _download() -> Path | None:
    folder = session.directory("datastar")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), _PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_FILE, folder))
