"""The machine and the versions that a run was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess

from .world import World

__all__ = ["describe"]

_PACKAGES = (
    "psycopg",
    "gunicorn",
    "Flask",
    "Werkzeug",
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "sse-starlette",
    "flask-sse",
    "gevent",
    "redis",
)


def describe(world: World) -> dict[str, str]:
    """Names and values, in the order in which they are to be read."""
    described = {
        "CPU": f"{os.cpu_count()} cores, {_cpu_model()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "PostgreSQL": _postgres(world),
    }
    if version := _redis():
        described["Redis"] = version
    for package in _PACKAGES:
        try:
            described[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        **described,
        "placement": str(world.placement),
        "load at the start": f"{os.getloadavg()[0]:.2f} (average of a minute)",
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.machine()


def _postgres(world: World) -> str:
    with world.postgres.connect() as connection:
        return str(connection.info.parameter_status("server_version"))


def _redis() -> str | None:
    program = shutil.which("redis-server")
    if program is None:
        return None
    line = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    return next((word[2:] for word in line.split() if word.startswith("v=")), None)
