"""The topics of a schedule: what its publishers and its subscribers draw from."""

from __future__ import annotations

from .record import Topic

__all__ = ["CHANNELS", "TENANTS", "TOPICS"]

TENANTS = (
    "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11",
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
)
CHANNELS = ("orders", "stock", "größe")
TOPICS = [Topic(channel, tenant) for tenant in TENANTS for channel in CHANNELS]
