"""What a machine may lack: a skip with the reason for a developer, a failure where nothing may be left out."""

from __future__ import annotations

import os

import pytest


def need(condition: object, reason: str) -> None:
    """Go on if `condition` is true; otherwise skip the test, or fail it when the environment says CI=true."""
    if condition:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (CI=true: this test may not be skipped)", pytrace=False)
    pytest.skip(reason)
