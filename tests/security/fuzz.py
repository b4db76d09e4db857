"""A coverage-guided fuzzer for the envelope and the event stream, with the tests' oracle.

    python -m tests.security.fuzz --target sse|envelope|all --seconds 60 --seed 1
    python -m tests.security.fuzz --target envelope --replay fuzz-envelope-0123456789ab

Exit status 0: nothing found; 1: an input breaks the rules, and was saved; 2: the fuzzer could not run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_NAMES = ("sse", "envelope")
_MISSING = "The fuzzer needs atheris, which has wheels for Linux: pip install '.[fuzz]', or make fuzz."
_INSTRUMENTED = ["pgfanout"]
_LONGEST = 8100  # bytes: a little more than NOTIFY carries
_SLOWEST = 20  # seconds that one input may take


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets one after the other; the exit status."""
    options = _options(arguments)
    if options.replay:
        return _replay(options.target, options.replay)
    if importlib.util.find_spec("atheris") is None:
        print(_MISSING, file=sys.stderr)
        return 2
    if options.engine:
        _run_engine(options.target, options.engine)
    chosen = _NAMES if options.target == "all" else (options.target,)
    return max([_fuzz(target, options.seconds, options.seed, options.save) for target in chosen])


def _replay(target: str, path: Path) -> int:
    """Try one saved input; its failure is shown as it is."""
    accepted = _targets().TARGETS[target](path.read_bytes())
    print(f"{target}: {path} breaks nothing, and is {'accepted' if accepted else 'refused'}")
    return 0


def _run_engine(target: str, arguments: list[str]) -> None:
    """Fuzz until libFuzzer ends the process, which is why it has a process of its own."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        check = _targets().TARGETS[target]
    accepted = executed = 0

    def one_input(data: bytes) -> None:
        nonlocal accepted, executed
        accepted += check(data)
        executed += 1
        if executed % 1000 == 0:  # at its end the engine leaves no time for a last word
            print(f"accepted: {accepted}", file=sys.stderr, flush=True)

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def _targets() -> ModuleType:
    # Not imported at the top: the engine measures the coverage of what is imported under its eyes.
    return importlib.import_module("tests.security.fuzz_targets")


def _fuzz(target: str, seconds: int, seed: int, save: Path) -> int:
    """One target in a child process, and a line that tells how it went; the exit status."""
    with tempfile.TemporaryDirectory(prefix="pgfanout-fuzz-") as name:
        scratch = Path(name)
        log = _run_child(target, seconds, seed, _files(scratch, target))
        found = [shutil.copy(path, save / _saved_name(target, path)) for path in (scratch / "found").iterdir()]
    executions = _last("number_of_executed_units: *([0-9]+)", log)
    story = (
        f"{target}: {executions} executions, at least {_last('accepted: ([0-9]+)', log)} of them accepted, coverage"
        f" {_last('cov: ([0-9]+)', log)} edges and {_last('ft: ([0-9]+)', log)} features, seed {seed}"
    )
    if executions and not found:
        print(f"{story}: nothing found", flush=True)
        return 0
    print(log[-4000:], file=sys.stderr)
    print(f"{story}: FAILED, " + (f"the input is {found[0]}" if found else "the engine did not run"), flush=True)
    return 1 if found else 2


def _files(scratch: Path, target: str) -> list[str]:
    """The engine's arguments that name files, and the files themselves."""
    module = _targets()
    for name in ("corpus", "found"):
        (scratch / name).mkdir()
    for number, seed in enumerate(module.SEEDS[target]):
        (scratch / "corpus" / str(number)).write_bytes(seed)
    tokens = ["".join(f"\\x{byte:02x}" for byte in token.encode()) for token in module.TOKENS]
    (scratch / "tokens").write_text("".join(f'"{token}"\n' for token in tokens), encoding="ascii")
    return [f"-dict={scratch}/tokens", f"-artifact_prefix={scratch}/found/", f"{scratch}/corpus"]


def _run_child(target: str, seconds: int, seed: int, files: list[str]) -> str:
    """What the engine says."""
    command = [sys.executable, "-m", "tests.security.fuzz", "--target", target, "--engine"]
    engine = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST}"]
    command += [*engine, "-print_final_stats=1", *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=seconds + 120)
    return done.stdout.decode(errors="replace")


def _saved_name(target: str, artifact: Path) -> str:
    kind, _, digest = artifact.name.partition("-")  # crash, timeout or oom
    return f"fuzz-{target}-{kind}-{digest[:12]}"


def _last(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--target", choices=[*_NAMES, "all"], default="all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="above 0; without it one is drawn")
    parser.add_argument("--save", type=Path, default=Path(), metavar="FOLDER", help="where an input that fails goes")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try one input, without atheris")
    parser.add_argument("--engine", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.replay and options.target == "all":
        parser.error("--replay needs the --target that the input is for")
    options.seed = options.seed or secrets.randbelow(2**31 - 1) + 1
    return options


if __name__ == "__main__":
    sys.exit(main())
