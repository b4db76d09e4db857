"""Packages of npm for pages in browsers, installed once for the session."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from .need import need
from .processes import session

_LIMIT = 120.0


def install(*packages: str) -> Path:
    """Return the folder `node_modules` with the packages. Skip the test if npm is missing or can't install them."""
    modules, reason = _install(packages)
    need(not reason, reason)
    return modules


@functools.cache
def _install(packages: tuple[str, ...]) -> tuple[Path, str]:
    npm, folder = shutil.which("npm"), session.directory("npm")
    if npm is None:
        return folder, "npm is not installed"
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return folder, f"npm did not install {' '.join(packages)} in {_LIMIT:g} s"
    return folder / "node_modules", f"npm can't install {' '.join(packages)}" if done.returncode else ""
