"""What pgbench has printed and logged is read right."""

from __future__ import annotations

import pytest

from benchmarks.pgbench import latencies, report

TEXT = r"""pgbench (18.4)
transaction type: /tmp/script
scaling factor: 1
query mode: prepared
number of clients: 16
number of threads: 1
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 4405
number of failed transactions: 0 (0.000%)
latency average = 7.239 ms
initial connection time = 40.601 ms
tps = 2210.198531 (without initial connection time)
statement latencies in milliseconds and failures:
         0.001           0  \set row random(1, 10000)
         0.116           0  BEGIN;
         0.205           0  SELECT pg_notify('c', '{"n":' || :row || ',"x":" 1 2"}');
         6.721           0  COMMIT;
"""


def test_a_report_has_the_rate_and_each_statement() -> None:
    read = report(TEXT)
    assert read.rate == 2210.198531
    assert read.statements == {
        r"\set row random(1, 10000)": 0.001,
        "BEGIN;": 0.116,
        """SELECT pg_notify('c', '{"n":' || :row || ',"x":" 1 2"}');""": 0.205,
        "COMMIT;": 6.721,
    }


def test_failed_transactions_spoil_a_report() -> None:
    with pytest.raises(RuntimeError, match="3 failed"):
        report(TEXT.replace("failed transactions: 0", "failed transactions: 3"))


@pytest.mark.parametrize("text", ["", "pgbench (18.4)\n", TEXT.replace("tps = ", "tps: ")])
def test_what_is_no_report_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(RuntimeError, match="not a report"):
        report(text)


def test_latencies_come_in_ascending_milliseconds() -> None:
    assert latencies(["0 1 7512 0 1784900000 97534", "3 1 950 0 1784900000 98000"]) == [0.95, 7.512]
    assert latencies([]) == []
