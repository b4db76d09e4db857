"""What has to hold before the first fault: nobody is alarmed, and nobody waits for a reader."""

from __future__ import annotations

import queue
import statistics
import time
import uuid
from contextlib import ExitStack

from tests.support.sse import EventSource

from .world import SITE, World

__all__ = ["disturbances"]

_PEACE = 3.0
_PATIENCE = 10.0
_AT_ONCE = 0.3
_STALLED = 20
_EVENTS = 1600


def disturbances(world: World) -> list[str]:
    """A line for each promise that is broken in peace."""
    return _alarms(world) + _delays(world) + _losses(world) + _sleepers(world)


def _alarms(world: World) -> list[str]:
    """Whoever tells a gap all the time never has a silent one. One alarm is allowed, for a machine that is busy."""
    before = {name: hub.stats().gaps for name, hub in world.hubs.items()}
    time.sleep(_PEACE)
    told = {name: hub.stats().gaps - before[name] for name, hub in world.hubs.items()}
    return [
        f"peace: hub {name} told {count} gaps in {_PEACE:g} s without a fault"
        for name, count in told.items()
        if count > 1
    ]


def _delays(world: World) -> list[str]:
    """Readers that never read overflow some thousand times; what is committed after that arrives all the same."""
    tenant = uuid.uuid4()
    hub = world.hubs["small"]
    with ExitStack() as stack:
        for _ in range(_STALLED):
            stack.enter_context(hub.subscribe("stalled", tenant))
        reader = stack.enter_context(hub.subscribe("end", tenant))
        events = [("stalled", tenant, number) for number in range(_EVENTS)]
        with world.connect() as connection:
            hub.publish_many([*events, ("end", tenant, "end")], executor=connection)
        try:
            reader.get(_PATIENCE)
        except queue.Empty:
            return [f"bounded: an event was held up for {_PATIENCE:g} s by {_STALLED} readers that stalled"]
    return []


def _losses(world: World) -> list[str]:
    """What a hub sends by a connection of its own, for which the commit log has no mark; and nothing follows it."""
    tenant = uuid.uuid4()
    with world.hubs["small"].subscribe("own", tenant) as reader, world.new_hub() as hub:
        for number in range(3):
            hub.publish("own", tenant, number)
        try:
            got = [reader.get(_PATIENCE).json() for _ in range(3)]
        except queue.Empty:
            return [f"lost: an event without an executor did not arrive within {_PATIENCE:g} s"]
    return [] if got == [0, 1, 2] else [f"order: {got} arrived instead of [0, 1, 2]"]


def _sleepers(world: World) -> list[str]:
    """Streams are woken by an event, not by the next keepalive."""
    tenant, delays = uuid.uuid4(), []
    url = f"{world.sites[SITE].url}/events?tenant={tenant}&channel=own"
    with EventSource(url) as source, world.new_hub() as hub:
        source.wait_for(lambda source: source.comments)
        for number in range(15):
            begin = time.monotonic()
            hub.publish("own", tenant, number)
            try:
                source.events_until(lambda event: event.type == "message", _PATIENCE)
            except AssertionError as error:
                return [f"lost: a stream's event did not arrive in peace ({error})"]
            delays.append(time.monotonic() - begin)
    typical = statistics.median(delays)
    return [f"slow: a stream's events take {typical:.2f} s in peace"] if typical > _AT_ONCE else []
