"""The routes. Wrong input is a 4xx whose JSON says what was wrong.

Anyone may see and change any tenant here, since there is nobody to ask. A real application takes
the tenant from the session of the user who asks.
"""

from __future__ import annotations

import os
from typing import Any, cast
from uuid import UUID

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


def _payloads(tenant: UUID) -> list[dict[str, Any]]:
    return [order.payload() for order in _orders().all(tenant)]


@board.before_request
def prepare() -> None:
    """Where nobody did before, the first request does: without the history the hub can't listen."""
    _orders().prepare()


@board.get("/")
def page() -> str:
    """The board with its orders, which the template asks for when it has the cursor."""
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
    """A tenant's changes, as server-sent events."""
    return fanout.stream(CHANNEL, fields.tenant(request.args.get("tenant")))


@board.get("/orders")
def list_orders() -> Response:
    """A tenant's orders, as of now."""
    tenant = fields.tenant(request.args.get("tenant"))
    return jsonify(orders=_payloads(tenant))


@board.post("/orders")
def create_order() -> tuple[Response, int]:
    """201 with the new order."""
    body = fields.json_object(request)
    tenant, title = fields.tenant(body.get("tenant")), fields.title(body.get("title"))
    return jsonify(_orders().create(tenant, title).payload()), 201


@board.post("/orders/<int:id>")
def move_order(id: int) -> Response:
    """The order in its new status."""
    status = fields.status(fields.json_object(request).get("status"))
    order = _orders().move(id, status)
    if order is None:
        abort(404, f"there is no order {id}")
    return jsonify(order.payload())


@board.get("/healthz")
def healthz() -> Response:
    """200 when this process listens, 503 when not."""
    return fanout.healthz()


@board.get("/status")
def status() -> Response:
    """Open streams and busy threads of this process, with the one that answers; of how many, 0 when unknown."""
    return jsonify(
        streams=fanout.limiter.open,
        busy=cast(Load, current_app.extensions["load"]).busy,
        threads=int(os.environ.get("BOARD_THREADS", 0)),
    )


@board.post("/demo/burst")
def burst() -> Response:
    """Many changes in one transaction: more than a stream's buffer holds, so they come from the history."""
    tenant = fields.tenant(fields.json_object(request).get("tenant"))
    return jsonify(changes=_orders().burst(tenant))


@board.post("/demo/cut")
def cut() -> Response:
    """Cut the listener's connection, as a failing network would. It heals by itself."""
    fields.json_object(request)
    return jsonify(cut=_orders().cut())
