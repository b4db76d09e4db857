"""The routes. For invalid input the response is a 4xx, and its JSON says what is wrong.

Here anyone may see and change any tenant, since there are no users. A real application takes the tenant from the user's
session.
"""

from __future__ import annotations

import os
from typing import Any, cast

from flask import Blueprint, Response, abort, current_app, jsonify, render_template, request

from pgfanout.flask import PgFanout

from . import fields
from .database import CHANNEL
from .load import Load
from .orders import BURST, STATUSES, Orders
from .tenants import TENANTS

__all__ = ["board", "fanout"]

fanout = PgFanout()
board = Blueprint("board", __name__)


def _orders() -> Orders:
    return cast(Orders, current_app.extensions["orders"])


def _payloads(tenant: str) -> list[dict[str, Any]]:
    return [order.payload() for order in _orders().all(tenant)]


@board.before_request
def prepare() -> None:
    """Prepare the database at the first request if it is not done. The hub can't listen without the history."""
    _orders().prepare()


@board.get("/")
def page() -> str:
    """Return the board with its orders. The template reads the cursor first, and then the orders."""
    return render_template(
        "board.html",
        tenants=TENANTS,
        orders=_payloads,
        statuses=STATUSES,
        burst=BURST,
        title_limit=fields.TITLE_LIMIT,
    )


@board.get("/events")
def events() -> Response:
    """Return a tenant's changes as server-sent events."""
    return fanout.stream(CHANNEL, fields.tenant(request.args.get("tenant")))


@board.get("/orders")
def list_orders() -> Response:
    """Return a tenant's current orders."""
    tenant = fields.tenant(request.args.get("tenant"))
    return jsonify(orders=_payloads(tenant))


@board.post("/orders")
def create_order() -> tuple[Response, int]:
    """Return 201 with the new order."""
    body = fields.json_object(request)
    tenant, title = fields.tenant(body.get("tenant")), fields.title(body.get("title"))
    return jsonify(_orders().create(tenant, title).payload()), 201


@board.post("/orders/<int:id>")
def move_order(id: int) -> Response:
    """Return the order in its new status."""
    status = fields.status(fields.json_object(request).get("status"))
    order = _orders().move(id, status)
    if order is None:
        abort(404, f"there is no order {id}")
    return jsonify(order.payload())


@board.get("/healthz")
def healthz() -> Response:
    """Return 200 if this process listens, else 503."""
    return fanout.healthz()


@board.get("/status")
def status() -> Response:
    """Return the process's open streams, busy threads (including this one) and all threads (0 if unknown)."""
    return jsonify(
        streams=fanout.limiter.open,
        busy=cast(Load, current_app.extensions["load"]).busy,
        threads=int(os.environ.get("BOARD_THREADS", 0)),
    )


@board.post("/demo/burst")
def burst() -> Response:
    """Make more changes in one transaction than a stream's buffer holds. The stream gets them from the history."""
    tenant = fields.tenant(fields.json_object(request).get("tenant"))
    return jsonify(changes=_orders().burst(tenant))


@board.post("/demo/cut")
def cut() -> Response:
    """Cut the listener's connection, as a failing network would. The hub reconnects by itself."""
    fields.json_object(request)
    return jsonify(cut=_orders().cut())
