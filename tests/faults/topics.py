"""The topics of a schedule: what its publishers and its subscribers draw from."""

from __future__ import annotations

import random
import uuid

from pgfanout import TenantId
from pgfanout.topic import is_uuid

from .record import Topic

__all__ = ["CHANNELS", "TENANTS", "TOPICS", "kind_of", "spelled"]

TENANTS = ("7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "7", 'it\'s größe "7" \\u0037 %s')
CHANNELS = ("orders", "stock", "größe")
TOPICS = [Topic(channel, tenant) for tenant in TENANTS for channel in CHANNELS]


def kind_of(tenant: str, rng: random.Random) -> TenantId:
    """Return a tenant as an application has it: a UUID or its text, a number or its digits, a text."""
    if is_uuid(tenant):
        return rng.choice((uuid.UUID(tenant), tenant))
    return rng.choice((int(tenant), tenant)) if tenant.isdigit() else tenant


def spelled(tenant: str) -> str:
    """Return another text of the same tenant, if there is one."""
    return tenant.upper() if is_uuid(tenant) else tenant
