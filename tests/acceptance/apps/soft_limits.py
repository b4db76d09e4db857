"""A Celery application whose tasks publish until their soft time limit. DATABASE_URL and BROKER_URL say where."""

from __future__ import annotations

import importlib
import os
from typing import Any

from pgfanout import PostgresHub

TENANT = "11111111-1111-4111-8111-111111111111"

celery: Any = importlib.import_module("celery")
limits: Any = importlib.import_module("celery.exceptions")

app = celery.Celery("soft_limits", broker=os.environ["BROKER_URL"])
app.conf.update(
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_ignore_result=True,
)
hub = PostgresHub(os.environ["DATABASE_URL"])


@app.task(name="publish_for_too_long")  # type: ignore[untyped-decorator]
def publish_for_too_long(number: int) -> None:
    """Nearly all of its time is spent waiting for the answer to a publish, where the limit finds it."""
    noise = [("noise", TENANT, "x" * 500)] * 50
    try:
        while True:
            hub.publish_many(noise)
    except limits.SoftTimeLimitExceeded:
        hub.publish("reports", TENANT, number)
