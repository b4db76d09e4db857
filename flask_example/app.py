"""create_app: the application, with the database in DATABASE_URL or with an embedded server."""

from __future__ import annotations

from typing import cast

from flask import Flask, Response, current_app, jsonify
from psycopg import OperationalError
from werkzeug.exceptions import HTTPException

from pgfanout import PgFanoutError, PostgresHub

from . import embedded
from .load import Load
from .orders import Orders
from .routes import board, fanout

__all__ = ["create_app"]


def create_app(database_url: str | None = None) -> Flask:
    """Return the board's application. Without a URL it uses `embedded.database_url()`.

    It connects to the database at the first request. Only an embedded server is started here.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    app.config["PGFANOUT_URL"] = database_url or embedded.database_url()
    app.config["PGFANOUT_HISTORY"] = True
    fanout.init_app(app)
    with app.app_context():
        hub = cast(PostgresHub, fanout.hub)
    app.extensions["orders"] = Orders(app.config["PGFANOUT_URL"], hub)
    app.extensions["load"] = app.wsgi_app = Load(app.wsgi_app)  # type: ignore[method-assign]
    app.register_blueprint(board)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(OperationalError, _no_database)
    app.register_error_handler(PgFanoutError, _no_hub)
    app.after_request(_self_contained)
    return app


def _http_error(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error=error.description), error.code or 500


def _no_database(error: OperationalError) -> tuple[Response, int]:
    return jsonify(error="the database does not answer"), 503


def _no_hub(error: PgFanoutError) -> tuple[Response, int]:
    """The hub can't listen, or is closed because the server is shutting down."""
    current_app.logger.warning("%s", error)
    return jsonify(error="there are no live updates at the moment"), 503


def _self_contained(response: Response) -> Response:
    """Set a policy: the page loads nothing from elsewhere, and a title can't become a script."""
    response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
    return response
