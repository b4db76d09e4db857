"""MemoryHub: what it says where nobody can hear it. The contract suite tests the rest."""

from __future__ import annotations

import logging

import pytest

from pgfanout import MemoryHub
from pgfanout.backends import memory

# Private members: what a process was told already.


def test_publishing_where_nothing_has_subscribed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    memory._say_that_nobody_hears.cache_clear()
    caplog.set_level(logging.INFO, "pgfanout")
    with MemoryHub() as hub:
        hub.publish("orders", None, 1)
        hub.publish("orders", None, 2)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "nothing in this process has subscribed yet" in record.getMessage()


def test_publishing_to_a_subscription_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    memory._say_that_nobody_hears.cache_clear()
    caplog.set_level(logging.INFO, "pgfanout")
    with MemoryHub() as hub, hub.subscribe("orders", None):
        hub.publish("orders", None, 1)
    assert caplog.records == []
