"""A process whose psycopg is instrumented by OpenTelemetry before anything is imported, with comments in statements.

    python -m tests.support.traced URL

It prints what a hub with and one without history hear of what they publish themselves, and through an application's
connection.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import psycopg
from psycopg.rows import dict_row

TENANT = "11111111-1111-4111-8111-111111111111"


def instrument() -> None:
    sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    importlib.import_module("opentelemetry.trace").set_tracer_provider(sdk.TracerProvider())
    psycopgs: Any = importlib.import_module("opentelemetry.instrumentation.psycopg")
    psycopgs.PsycopgInstrumentor().instrument(enable_commenter=True, skip_dep_check=True)


def main(url: str) -> None:
    instrument()
    from pgfanout import PostgresHub

    for history in (False, True):
        with (
            PostgresHub(url, history=history, heartbeat=0.1) as hub,
            psycopg.connect(url, row_factory=dict_row) as connection,
        ):
            hub.install_history()
            cursor = hub.cursor()
            subscription = hub.subscribe("orders", TENANT)
            hub.publish("orders", TENANT, "own")
            hub.publish("orders", TENANT, "connection", executor=connection)
            hub.publish("orders", TENANT, "cursor", executor=connection.cursor())
            hub.publish_many([("orders", TENANT, "many")], executor=connection.cursor("of the server's"))
            connection.commit()
            heard = [subscription.get(20.0).json() for _ in range(4)]
            if history:
                again = hub.subscribe("orders", TENANT, after=cursor)
                heard += [again.get(20.0).json() for _ in range(4)]
            sys.stdout.write(" ".join(map(str, heard)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
