"""A test run leaves nothing behind, even one that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import processes
from tests.support.processes import REPOSITORY, session
from tests.support.wait import eventually

KILLED_RUN = """
import os, sys
sys.path.append(sys.argv[1])
from tests.support.processes import session, spawn
with open(os.devnull, "wb") as log:
    child = spawn(["sh", "-c", "sleep 600 & sleep 600"], log=log)
print(child.pid, session.directory("x").parent, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_process_that_was_not_ended_is_found() -> None:
    with open("/dev/null", "wb") as log:
        sleeper = processes.spawn(["sleep", "600"], log=log)
    assert [line for line in session.leftovers() if line == f"{sleeper.pid} sleep 600"]
    processes.kill_tree(sleeper)
    assert not [line for line in session.leftovers() if "sleep 600" in line]


def test_an_orphan_is_found_too() -> None:
    with open("/dev/null", "wb") as log:
        parent = processes.spawn(["sh", "-c", "sleep 600 & exec true"], log=log)
    processes.reap(parent, 10)
    (orphan,) = eventually(lambda: [line for line in session.leftovers() if line.endswith("sleep 600")])
    psutil.Process(int(orphan.split()[0])).kill()
    eventually(lambda: orphan not in session.leftovers())


def test_what_a_killed_run_has_started_goes_with_it() -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(REPOSITORY)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert run.returncode == -9
    pid, scratch = run.stdout.split()
    eventually(lambda: not psutil.pid_exists(int(pid)))
    eventually(lambda: not Path(scratch).exists())


LEAKY_TEST = """
import subprocess, threading
def test_leaks():
    threading.Thread(target=threading.Event().wait, args=(60,), name="pgfanout-leak", daemon=True).start()
    globals()["kept"] = subprocess.Popen(["sleep", "60"])
"""


def test_a_run_with_leftovers_fails(tmp_path: Path) -> None:
    (tmp_path / "test_leaky.py").write_text(LEAKY_TEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir"]
    run = subprocess.run(
        [*command, str(tmp_path), str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "left behind: threads ['pgfanout-leak']" in run.stdout
    assert "sleep 60']" in run.stdout
    pid = int(run.stdout.partition("processes ['")[2].split()[0])
    psutil.Process(pid).kill()


@pytest.mark.parametrize("value", [0, "", [], None])
def test_a_wait_in_vain_tells_the_last_value(value: object) -> None:
    with pytest.raises(AssertionError, match="the last call returned"):
        eventually(lambda: value, timeout=0.02)


def test_a_wait_in_vain_tells_the_last_exception() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        eventually(lambda: 1 / 0, timeout=0.02)
