"""The two tenants that the page shows. The routes serve any other tenant as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TENANTS", "Tenant", "menu"]


@dataclass(frozen=True)
class Tenant:
    """A shop. `id` also names its colours in the style sheet. `menu` lists what can be ordered there."""

    id: str
    name: str
    kind: str
    menu: tuple[str, ...]


TENANTS: Final = (
    Tenant(
        id="cafe",
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
        id="bikes",
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


def menu(tenant: str) -> tuple[str, ...]:
    """Return what can be ordered at a tenant. A tenant that the page doesn't show has the first one's menu."""
    return next((shop.menu for shop in TENANTS if shop.id == tenant), TENANTS[0].menu)
