"""A wall clock for child processes that a test can shift: a library to preload, compiled on the spot.

Clocks that tell no time of day go on as they are, sleeping included, which libfaketime 0.9.10 breaks for Python 3.11.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long none, *shift = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("WALL_CLOCK_SHIFT");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        shift = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    return now ? (*now = exact.tv_sec) : exact.tv_sec;
}
"""


def missing_reason() -> str:
    """Why there can't be such a clock; empty when there can."""
    if not sys.platform.startswith("linux"):
        return "preloading a library is tested on Linux only"
    return "" if shutil.which("cc") else "there is no C compiler, cc, to make the library with"


class WallClock:
    """The time of day, shifted by some seconds, for processes that run in `environment`."""

    def __init__(self, directory: Path) -> None:
        source, library, shift = (directory / name for name in ("clock.c", "clock.so", "shift"))
        source.write_text(_SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        shift.write_bytes(bytes(8))
        with open(shift, "r+b") as file:
            self._shift = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_SHIFT": str(shift)}

    def jump(self, seconds: int) -> None:
        """Shift the clock by so many seconds, from the true time; running processes see it at once."""
        self._shift[:] = struct.pack("q", seconds)
