"""Check what the built archives hold: python tests/package_contents.py DIST_DIRECTORY

The wheel has the package, its marker for type checkers and its metadata, and nothing else. The source archive has
what is needed to build, test and try it.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IN_SOURCE = (
    "CHANGES.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "flask_example/__init__.py",
    "pgfanout/py.typed",
    "pyproject.toml",
    "setup.cfg",
    "tests/conftest.py",
    "tox.ini",
)


def package_files() -> set[str]:
    """Everything under pgfanout/ that is no by-product."""
    files = (path for path in (REPOSITORY / "pgfanout").rglob("*") if path.is_file())
    return {str(path.relative_to(REPOSITORY)) for path in files if "__pycache__" not in path.parts}


def wheel_complaints(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = package_files()
    return [
        *(f"{wheel.name} lacks {name}" for name in sorted(expected - held)),
        *(f"{wheel.name} should not hold {name}" for name in sorted(held - expected)),
    ]


def source_complaints(source: Path) -> list[str]:
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    complaints = [f"{source.name} lacks {name}" for name in sorted({*package_files(), *IN_SOURCE} - held)]
    return complaints + [f"{source.name} should not hold {name}" for name in sorted(held) if "__pycache__" in name]


def main() -> int:
    dist = Path(sys.argv[1])
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    complaints = wheel_complaints(wheel) + source_complaints(source)
    print(*(complaints or [f"{wheel.name} and {source.name} hold what they should"]), sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
