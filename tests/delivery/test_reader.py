"""The rule of readers, driven through both kinds of tail."""

from __future__ import annotations

from hypothesis import settings

from .model import Readers

TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
