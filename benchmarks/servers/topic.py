"""The one topic that every contender serves."""

from __future__ import annotations

__all__ = ["CHANNEL", "POSTGRES_CHANNEL", "TENANT"]

CHANNEL = "orders"
TENANT = "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"
POSTGRES_CHANNEL = "pgfanout_events"
