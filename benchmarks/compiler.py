"""The C programs, compiled on the spot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["compile_program", "missing_reason"]

_SOURCES = Path(__file__).resolve().parent


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC") or "cc")


def missing_reason() -> str | None:
    """Why nothing can be compiled here, or None."""
    return None if _compiler() else "there is no C compiler (cc, or what CC names)"


def compile_program(name: str, directory: Path) -> Path:
    """Compile `name`.c to a program in the directory."""
    compiler = _compiler()
    assert compiler is not None
    program = directory / name
    command = [compiler, "-O2", "-o", str(program), str(_SOURCES / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}.c does not compile:\n{done.stderr}")
    return program
