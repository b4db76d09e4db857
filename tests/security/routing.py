"""What the tests of tenant isolation share: tenants that look alike, and the oracle of a subscription's events."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from pgfanout import REFRESH_EVENT, Event, Subscription, TenantId
from pgfanout.topic import is_uuid

# Private members: that a queue is empty, without waiting.

__all__ = ["CHANNELS", "SPELLINGS", "TENANTS", "check_received", "drain", "typed"]

# Texts that are one after folding, trimming, normalising, parsing or unquoting.
TENANTS = [
    "00000000-0000-0000-0000-000000000000",
    "00000000-0000-0000-0000-000000000001",
    "abcdefab-cdef-4abc-8def-abcdefabcdef",
    "abcdefab-cdef-4abc-8def-abcdefabcdee",
    "abcdefabcdef4abc8defabcdefabcdef",
    "{abcdefab-cdef-4abc-8def-abcdefabcdef}",
    *("1", "01", "acme", "Acme", "acme ", "ácme", "a\u0301cme", "*", "%", '"acme"', "'acme'", "acme\\", "\\u0061cme"),
]

# Names that are one after folding, trimming, normalising or gluing a tenant to them; and SQL's own characters.
CHANNELS = ["orders", "Orders", "orders ", "órders", "o\u0301rders", f"orders:{TENANTS[1]}", "*", "%", '"orders"', "'"]


def typed(tenant: str) -> TenantId:
    """Return the object of another type that is the same tenant, if there is one."""
    if is_uuid(tenant):
        return uuid.UUID(tenant) if uuid.UUID(tenant).int else None
    return int(tenant) if tenant == "1" else tenant


SPELLINGS: list[Callable[[str], TenantId]] = [
    str,
    typed,
    lambda tenant: tenant.upper() if is_uuid(tenant) else tenant,
    lambda tenant: uuid.UUID(tenant) if is_uuid(tenant) else typed(tenant),
]


def drain(subscription: Subscription) -> list[Event]:
    """What waits in a subscription, which keeps receiving."""
    received: list[Event] = []
    while not subscription._backlog.empty():
        received.append(subscription.get(0))
    return received


def check_received(received: Sequence[Event], expected: Sequence[tuple[str, int]], buffer_size: int) -> None:
    """What was drained is what was expected since the last time, (channel, number) each, or its end after a refresh.

    A refresh is excused by more events than the buffer holds, and by nothing else.
    """
    numbers = [(event.channel, event.json()) for event in received if event is not REFRESH_EVENT]
    refreshes = [at for at, event in enumerate(received) if event is REFRESH_EVENT]
    if len(expected) <= buffer_size:
        assert (numbers, refreshes) == (list(expected), [])
    else:
        assert refreshes == [0], "one refresh stands where the backlog was dropped"
        assert numbers == list(expected[len(expected) - len(numbers) :]), "what follows it is the newest"
