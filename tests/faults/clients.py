"""Clients that come in crowds, leave at once, or want no stream at all."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pgfanout import PgFanoutError
from tests.support.sse import EventSource

from .fault import fault
from .world import THREADS, World


@fault("clients")
def crowd(world: World, rng: random.Random) -> None:
    """More streams than threads, whether they leave these or not; ordinary requests are answered all the same."""
    url = f"{world.site.url}/events?tenant=7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11&channel=crowd"
    urls = [f"{url}&detach={detach}" for detach in ("auto", "never") for _ in range(2 * THREADS)]
    rng.shuffle(urls)
    sources: list[EventSource] = []
    with ThreadPoolExecutor(16) as pool:
        opened = pool.map(lambda url: _open(url, timeout=3.0), urls)
        sources += [source for source in opened if source is not None]
        try:
            world.site_answers()
            world.streams_leave_threads()
        finally:
            for source in sources:
                rng.choice((source.close, source.reset))()


@fault("clients")
def heads(world: World, rng: random.Random) -> None:
    world.head_requests(rng.randint(5, 50))
    world.refused_requests(rng.randint(1, 5))


@fault("clients")
def churn(world: World, rng: random.Random) -> None:
    """Subscriptions of a hub come and go, as do streams of the site."""
    hub = world.hubs[rng.choice(sorted(world.hubs))]
    url = f"{world.site.url}/events?tenant=7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11&channel=orders"
    for _ in range(rng.randint(50, 300)):
        with suppress(PgFanoutError):
            hub.subscribe(("orders", "stock"), "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11").close()
    for _ in range(rng.randint(1, 20)):
        if (source := _open(url)) is not None:
            rng.choice((source.close, source.reset))()


def _open(url: str, timeout: float = 15.0) -> EventSource | None:
    try:
        return EventSource(url, timeout=timeout)
    except (OSError, AssertionError):  # another fault has the site, or it has no thread
        return None
