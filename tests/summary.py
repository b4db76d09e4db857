"""Sum up what each environment has tested, and why tests were skipped: python tests/summary.py RESULTS_DIRECTORY

The directory has the JUnit files that pytest writes, `ENVIRONMENT.xml` or `ENVIRONMENT.PART.xml`.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


class Environment:
    """The counts of one environment, and its reasons for skips."""

    def __init__(self) -> None:
        self.tests = self.failed = self.skipped = 0
        self.seconds = 0.0
        self.reasons: Counter[str] = Counter()

    def add(self, file: Path) -> None:
        """Add a file's results."""
        for suite in ElementTree.parse(file).getroot().iter("testsuite"):
            self.tests += int(suite.get("tests", 0))
            self.failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            self.skipped += int(suite.get("skipped", 0))
            self.seconds += float(suite.get("time", 0))
            self.reasons.update(skip.get("message", "") for skip in suite.iter("skipped"))

    def __str__(self) -> str:
        passed = self.tests - self.failed - self.skipped
        return f"{passed} passed, {self.failed} failed, {self.skipped} skipped, {self.seconds:.0f} s"


def summary(directory: Path) -> Iterator[str]:
    """The lines of the summary."""
    environments: defaultdict[str, Environment] = defaultdict(Environment)
    for file in sorted(directory.glob("*.xml")):
        environments[file.name.partition(".")[0]].add(file)
    if not environments:
        yield "no test has run to its end"
    for name, environment in environments.items():
        yield f"{name}: {environment}"
        for reason, count in environment.reasons.most_common():
            yield f"  skipped {count}: {' '.join(reason.split())}"


def main() -> int:
    print("\n== tests")
    for line in summary(Path(sys.argv[1])):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
