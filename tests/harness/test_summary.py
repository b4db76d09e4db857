"""The summary of `make test`: counts of each environment, and reasons for skips."""

from __future__ import annotations

from pathlib import Path

from tests.summary import summary

FILE = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="12.3">
<testcase name="a"><skipped type="pytest.skip" message="nginx is not&#10;installed">somewhere</skipped></testcase>
<testcase name="b"><skipped type="pytest.skip" message="nginx is not&#10;installed">elsewhere</skipped></testcase>
<testcase name="c"><skipped type="pytest.skip" message="no compiler">somewhere</skipped></testcase>
<testcase name="d"><failure message="assert 1 == 2">1</failure></testcase>
</testsuite></testsuites>
"""


def test_each_environment_has_its_counts_and_its_reasons(tmp_path: Path) -> None:
    for name in ("py310.xml", "py310.faults.xml", "coverage.xml"):
        (tmp_path / name).write_text(FILE)
    assert list(summary(tmp_path)) == [
        "coverage: 4 passed, 3 failed, 3 skipped, 12 s",
        "  skipped 2: nginx is not installed",
        "  skipped 1: no compiler",
        "py310: 8 passed, 6 failed, 6 skipped, 25 s",
        "  skipped 4: nginx is not installed",
        "  skipped 2: no compiler",
    ]


def test_nothing_at_all_is_said(tmp_path: Path) -> None:
    assert list(summary(tmp_path)) == ["no test has run to its end"]
