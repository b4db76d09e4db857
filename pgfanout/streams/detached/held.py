"""Writing without giving the interpreter up: `write`, as `os.write`, for descriptors that never block."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

__all__ = ["write"]

_write: Any
try:
    import ctypes

    # Functions of a PyDLL are called with the interpreter held (https://docs.python.org/3/library/ctypes.html).
    _write = ctypes.PyDLL(None, use_errno=True).write
    _write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    _write.restype = ctypes.c_ssize_t
except (ImportError, OSError, AttributeError, TypeError, MemoryError):  # a Python without ctypes, another system
    _write = None


def _held(descriptor: int, data: bytes) -> int:
    while (sent := _write(descriptor, data, len(data))) < 0:
        if (code := ctypes.get_errno()) != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return int(sent)


write: Callable[[int, bytes], int] = os.write if _write is None else _held
"""How many bytes were written. Raises `OSError`."""
