"""The two tenants that the page shows. The routes serve any other tenant as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

__all__ = ["TENANTS", "Tenant", "menu"]


@dataclass(frozen=True)
class Tenant:
    """A shop. `key` names its colours in the style sheet. `menu` lists what can be ordered there."""

    id: UUID
    key: str
    name: str
    kind: str
    menu: tuple[str, ...]


TENANTS: Final = (
    Tenant(
        id=UUID("c0ffee00-5eed-4b1d-9a11-0f1ab0a4d001"),
        key="cafe",
        name="Café Linden",
        kind="Espresso bar",
        menu=(
            "Flat white",
            "Oat cappuccino",
            "Double espresso",
            "Cortado",
            "Filter, Yirgacheffe",
            "Cardamom bun",
            "Almond croissant",
            "Chai latte",
            "Lemon tart",
            "Cold brew",
            "Toast, sharp cheddar",
            "Hot chocolate",
        ),
    ),
    Tenant(
        id=UUID("b1c1c1e5-5eed-4b1d-9a11-0f1ab0a4d002"),
        key="bikes",
        name="Spoke & Saddle",
        kind="Bicycle workshop",
        menu=(
            "Puncture, rear",
            "New chain",
            "Brake pads",
            "Wheel truing",
            "Full service",
            "Bottom bracket",
            "Gear cable",
            "Headset, new bearings",
            "Tubeless setup",
            "Saddle fitting",
            "Dynamo light",
            "Bar tape, blue",
        ),
    ),
)


def menu(tenant: UUID) -> tuple[str, ...]:
    """Return what can be ordered at a tenant. A tenant that the page doesn't show has the first one's menu."""
    return next((shop.menu for shop in TENANTS if shop.id == tenant), TENANTS[0].menu)
