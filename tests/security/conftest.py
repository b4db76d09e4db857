"""The search for secrets, as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .exposure import Exposure


@pytest.fixture
def exposure() -> Iterator[Exposure]:
    with Exposure().capturing() as exposure:
        yield exposure
