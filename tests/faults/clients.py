"""Clients that come in crowds, leave at once, or want no stream at all."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from time import monotonic
from urllib.parse import quote, urlencode

from pgfanout import PgFanoutError
from tests.support.sse import EventSource

from .fault import fault
from .topics import CHANNELS, TENANTS
from .world import THREADS, World

_PROMPT = 5.0


@fault("clients")
def crowd(world: World, rng: random.Random) -> None:
    """More streams than threads, whether they leave these or not; ordinary requests are answered all the same."""
    name = rng.choice(sorted(world.sites))
    url = f"{world.sites[name].url}/events?tenant={TENANTS[0]}&channel=crowd"
    urls = [f"{url}&detach={detach}" for detach in ("auto", "never") for _ in range(2 * THREADS)]
    rng.shuffle(urls)
    sources: list[EventSource] = []
    with ThreadPoolExecutor(16) as pool:
        opened = pool.map(lambda url: _open(url, timeout=3.0), urls)
        sources += [source for source in opened if source is not None]
        try:
            world.site_answers(name)
            world.streams_leave_threads(name)
        finally:
            for source in sources:
                rng.choice((source.close, source.reset))()


@fault("clients")
def heads(world: World, rng: random.Random) -> None:
    name = rng.choice(sorted(world.sites))
    world.head_requests(name, rng.randint(5, 50))
    world.refused_requests(name, rng.randint(1, 5))


@fault("clients")
def churn(world: World, rng: random.Random) -> None:
    """Subscriptions of a hub come and go, as do streams of the site."""
    hub = world.hubs[rng.choice(sorted(world.hubs))]
    url = f"{world.sites[rng.choice(sorted(world.sites))].url}/events?tenant={TENANTS[0]}&channel=orders"
    for _ in range(rng.randint(50, 300)):
        with suppress(PgFanoutError):
            hub.subscribe(("orders", "stock"), TENANTS[0]).close()
    for _ in range(rng.randint(1, 20)):
        if (source := _open(url)) is not None:
            rng.choice((source.close, source.reset))()


@fault("clients")
def crowd_comes_back(world: World, rng: random.Random) -> None:
    """Readers come back from far behind and leave at once; others don't wait for what these have asked for."""
    name = rng.choice(sorted(world.sites))
    old = _old_number(world)
    urls = [
        f"{world.sites[name].url}/events?tenant={quote(tenant)}&{_ALL_CHANNELS}"
        for tenant in rng.choices(TENANTS, k=rng.randint(50, 300))
    ]
    with ThreadPoolExecutor(8) as pool:
        for source in pool.map(lambda url: _open(url, timeout=5.0, last_event_id=old), urls):
            if source is not None:
                rng.choice((source.close, source.reset))()
    _expect_prompt_stream(world, name)


@fault("clients")
def number_invented(world: World, rng: random.Random) -> None:
    """A page comes back with a number that no event has, to a worker that has offered events before and after it."""
    tenant, another = str(uuid.uuid4()), str(uuid.uuid4())
    site = world.sites[rng.choice(sorted(world.sites))]
    url = f"{site.url}/events?channel=orders&detach={rng.choice(_MODES)}&tenant="
    with ExitStack() as stack, world.connect() as admin, suppress(AssertionError):  # another fault may have the site

        def open_stream(tenant: str, number: str | None = None) -> EventSource:
            source = _open(url + tenant, last_event_id=number)
            assert source is not None
            return stack.enter_context(source)

        def publish(source: EventSource, tenant: str) -> str:
            world.hubs["large"].publish("orders", tenant, "an event", executor=admin)
            return source.events_until(lambda event: event.type != "refresh", _PROMPT)[-1].last_event_id

        first = open_stream(tenant)
        before = publish(first, tenant)
        publish(open_stream(another), another)  # the feed of the first has nothing after the number
        number = str(int(before) + 1) if world.history else "start"
        second = open_stream(tenant, number)
        second.wait_for(lambda s: s.parser.blocks, timeout=_PROMPT)
        publish(first, tenant)
        event = second.next_event(_PROMPT)
        if event.type != "refresh":
            world.broken.append(f"silent gap: a page came with the number {number}, and got {event} first")


_MODES = ("auto", "never")
_ALL_CHANNELS = urlencode([("channel", channel) for channel in CHANNELS])


def _old_number(world: World) -> str:
    """The number of an event of some thousand events ago; without history what every browser comes back with."""
    if not world.history:
        return "start"
    with world.connect() as admin:
        found = admin.execute("SELECT number FROM pgfanout.event ORDER BY number DESC OFFSET 3000 LIMIT 1").fetchall()
        return str(found[0][0] if found else world.last_number(admin))


def _expect_prompt_stream(world: World, name: str) -> None:
    """Somebody else comes back to the site, and has what came meanwhile; with history from the log."""
    tenant = str(uuid.uuid4())
    marks, began = world.session_marks(), monotonic()
    with world.connect() as admin:
        number = str(world.last_number(admin)) if world.history else "start"
        world.hubs["large"].publish("orders", tenant, "missed", executor=admin)
    source = _open(f"{world.sites[name].url}/events?tenant={tenant}&channel=orders", last_event_id=number)
    if source is None:
        return
    with source, suppress(AssertionError):
        source.wait_for(lambda s: s.received or s.ended or s.cut, timeout=_PROMPT)
    if monotonic() - began > _PROMPT and name not in world.renewed(marks):
        world.broken.append(f"bounded: who came back after a crowd had left waited for {_PROMPT:g} s")


def _open(url: str, timeout: float = 15.0, last_event_id: str | None = None) -> EventSource | None:
    try:
        return EventSource(url, timeout=timeout, last_event_id=last_event_id)
    except (OSError, AssertionError):  # another fault has the site, or it has no thread
        return None
