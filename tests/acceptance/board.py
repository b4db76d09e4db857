"""The board as its tests see it: what it is asked, and what its pages show."""

from __future__ import annotations

import json
import urllib.request

import psycopg
from playwright.sync_api import Locator, Page, Request, expect

from flask_example.orders import STATUSES
from flask_example.tenants import TENANTS
from tests.support.gunicorn import GunicornServer

CAFE, WORKSHOP = (str(tenant.id) for tenant in TENANTS)
LONG = 20.0

_SHOWN = 6
"""Cards in a column of a page."""

# As the page orders them, whose clock counts milliseconds.
_ORDERS = """
    SELECT status, title FROM board_orders WHERE tenant = %s
    ORDER BY floor(extract(epoch FROM updated_at) * 1000) DESC, id DESC
"""


def post(server: GunicornServer, path: str, body: object) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONG) as answer:
        return answer.status, json.load(answer)


def insert(connection: psycopg.Connection, *titles: str, tenant: str = CAFE, status: str = "new") -> None:
    """Orders that come from somewhere else than the application, each in a transaction of its own."""
    for title in titles:
        connection.execute(
            "INSERT INTO board_orders (tenant, title, status) VALUES (%s, %s, %s)", (tenant, title, status)
        )


def shop(page: Page, tenant: str) -> Locator:
    return page.locator(f"[data-tenant='{tenant}']")


def cards(page: Page, tenant: str) -> Locator:
    return shop(page, tenant).locator(".columns")


def column(page: Page, tenant: str, status: str) -> Locator:
    return shop(page, tenant).locator(f".column[data-status='{status}']")


def is_live(page: Page) -> None:
    for tenant in (CAFE, WORKSHOP):
        expect(shop(page, tenant)).to_have_attribute("data-state", "live", timeout=20_000)


def shows_the_table(page: Page, connection: psycopg.Connection) -> None:
    """Sooner or later the page has in each column what the table has now."""
    for tenant in (CAFE, WORKSHOP):
        orders = connection.execute(_ORDERS, (tenant,)).fetchall()
        for status in STATUSES:
            titles = [title for place, title in orders if place == status]
            here = column(page, tenant, status)
            expect(here.locator(".count")).to_have_text(str(len(titles)), timeout=20_000)
            expect(here.locator(".title")).to_have_text(titles[:_SHOWN], timeout=20_000)


def loads_of(page: Page) -> list[str]:
    """The URLs of the requests for orders that the page makes from now on."""
    loads: list[str] = []

    def note(request: Request) -> None:
        if request.method == "GET" and "/orders?" in request.url:
            loads.append(request.url)

    page.on("request", note)
    return loads


def complaints_of(page: Page) -> list[str]:
    """What the browser finds wrong with the page from now on, violations of its policy among it."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    return complaints
