"""The contract of a hub, run over every backend: a new one is one more line in BACKENDS.

What concerns subscribers is run over every kind of them too: a kind is one more line in SUBSCRIBERS.
"""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from typing import Any, Protocol

import pytest

from pgfanout import (
    CLOSE_EVENT,
    REFRESH_EVENT,
    Event,
    History,
    HubClosedError,
    InvalidEventError,
    MemoryHub,
    NotifyHub,
    PayloadTooLargeError,
    PgFanoutError,
    PostgresHub,
    TenantId,
)
from pgfanout.envelope import NOTIFY_LIMIT
from pgfanout.hub import core_of

from .support.detached import DetachedSubscription
from .support.wait import eventually

# Private members: the tests notify as a stranger does, on the hub's channel.

PATIENCE = 20.0
TENANT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


class MakeHub(Protocol):
    """Makes a hub that the fixture closes."""

    def __call__(self, *, buffer_size: int = 32, json_default: Callable[[Any], Any] | None = None) -> NotifyHub: ...


class Subscriber(Protocol):
    """What is promised of a subscription, and of a stream's client."""

    def get(self, timeout: float | None = None) -> Event: ...
    def get_all(self, timeout: float | None = None) -> list[Event]: ...
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Event]: ...


class Subscribe(Protocol):
    """Makes a subscriber that the fixture closes; one that doesn't `read` lets its events wait until it is asked."""

    def __call__(
        self,
        hub: NotifyHub,
        channels: str | Iterable[str],
        tenant: TenantId | Iterable[TenantId],
        *,
        reads: bool = True,
    ) -> Subscriber: ...


def memory(request: pytest.FixtureRequest) -> MakeHub:
    return MemoryHub


def postgres(request: pytest.FixtureRequest) -> MakeHub:
    url: str = request.getfixturevalue("database_url")
    # A channel for each test, since what was sent to another one may still arrive.
    channel = f"contract_{uuid.uuid4().hex}"

    def make(**options: Any) -> NotifyHub:
        return PostgresHub(url, postgres_channel=channel, **options)

    return make


def history(request: pytest.FixtureRequest, *, log_only: bool = True) -> MakeHub:
    url: str = request.getfixturevalue("database_url")
    name = uuid.uuid4().hex

    def make(**options: Any) -> NotifyHub:
        # Each test has a log of its own. A reader that is too slow is told to, since that is what is tested here.
        settings = History(schema=f"history_{name}", refill=False, max_payload=NOTIFY_LIMIT, log_only=log_only)
        hub = PostgresHub(url, postgres_channel=f"contract_{name}", history=settings, **options)
        hub.install_history()
        return hub

    return make


def history_beside_others(request: pytest.FixtureRequest) -> MakeHub:
    return history(request, log_only=False)


BACKENDS = [
    pytest.param(memory, id="memory"),
    pytest.param(postgres, id="postgres", marks=pytest.mark.postgres),
    pytest.param(history, id="history", marks=pytest.mark.postgres),
]

# Those that deliver what others notify.
OPEN_TO_OTHERS = pytest.mark.parametrize(
    "make_hub",
    [*BACKENDS[:2], pytest.param(history_beside_others, id="history_beside_others", marks=pytest.mark.postgres)],
    indirect=True,
)


@pytest.fixture(params=BACKENDS)
def make_hub(request: pytest.FixtureRequest) -> Iterator[MakeHub]:
    made: list[NotifyHub] = []
    make_one: MakeHub = request.param(request)

    def make(**options: Any) -> NotifyHub:
        hub = make_one(**options)
        made.append(hub)
        return hub

    yield make
    for hub in made:
        hub.close()


@pytest.fixture
def hub(make_hub: MakeHub) -> NotifyHub:
    return make_hub()


def subscription(
    hub: NotifyHub, channels: str | Iterable[str], tenant: TenantId | Iterable[TenantId], *, reads: bool = True
) -> Subscriber:
    return hub.subscribe(channels, tenant)


def detached_stream(
    hub: NotifyHub, channels: str | Iterable[str], tenant: TenantId | Iterable[TenantId], *, reads: bool = True
) -> Subscriber:
    return DetachedSubscription(hub, channels, tenant, reads=reads)


SUBSCRIBERS: list[Subscribe] = [subscription, detached_stream]


@pytest.fixture(params=SUBSCRIBERS, ids=lambda kind: str(kind.__name__))
def subscribe(request: pytest.FixtureRequest) -> Iterator[Subscribe]:
    made: list[Subscriber] = []
    make: Subscribe = request.param

    def subscribe(
        hub: NotifyHub, channels: str | Iterable[str], tenant: TenantId | Iterable[TenantId], *, reads: bool = True
    ) -> Subscriber:
        subscriber = make(hub, channels, tenant, reads=reads)
        made.append(subscriber)
        return subscriber

    yield subscribe
    for subscriber in made:
        subscriber.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(24) as pool:
        yield pool


def payloads(subscription: Subscriber, count: int) -> list[Any]:
    """The next so many payloads; no refresh may stand between them."""
    events = [subscription.get(PATIENCE) for _ in range(count)]
    assert REFRESH_EVENT not in events
    return [event.json() for event in events]


def settle(hub: NotifyHub) -> None:
    """Return when everything that was published before has been handed out."""
    with hub.subscribe("settle", OTHER) as clock:
        hub.publish("settle", OTHER, "tick")
        while (event := clock.get(PATIENCE)) is REFRESH_EVENT:
            pass  # a gap concerns everyone who is there
        assert event.json() == "tick"


def rest(subscription: Subscriber) -> list[Event]:
    """What waits now."""
    try:
        return subscription.get_all(timeout=0)
    except queue.Empty:
        return []


# Delivery.


def test_an_event_arrives_as_it_was_published(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, {"id": 42, "note": None}, type="order.created")
    event = subscription.get(PATIENCE)
    assert (event.channel, event.type, event.json()) == ("orders", "order.created", {"id": 42, "note": None})
    assert event.id


def test_an_event_without_a_type_has_none(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert subscription.get(PATIENCE).type == ""


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "",
        0.1,
        [],
        "100 % %s %(x)s {} $1 ' \" \\ \\\\",
        "line\r\nline \u2028 \u0085 \t",
        "é ☃ \U0001f600",
        "\ud800",
        {"": [{"deep": [[[True]]]}]},
        2**70,
    ],
    ids=ascii,
)
def test_any_payload_arrives_as_it_was(hub: NotifyHub, subscribe: Subscribe, payload: Any) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, payload)
    assert subscription.get(PATIENCE).json() == payload


BYTES = [b'{ "a" : 1.10,\r\n"b":[ ] }', b"123456789012345678901234567890.10", b'"\\u00e9"', b'{"a":1,"a":2}', b"-0"]
BYTES += [b" 1", b"1\n", b'\t\r\n {"a":1}\r\n\t ', b" " + b"9" * 5000 + b" ", '" \\/ é\u2028"'.encode()]


@pytest.mark.parametrize("payload", BYTES)
def test_json_bytes_arrive_byte_for_byte(hub: NotifyHub, payload: bytes) -> None:
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, payload)
    assert subscription.get(PATIENCE).payload == payload


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_json_bytes_arrive_line_by_line(hub: NotifyHub, subscribe: Subscribe, end: bytes) -> None:
    """An event stream has lines, however they end; all else is as it was."""
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, b'{ "a" : 1.10,' + end + end + b'"b":[ ] }')
    assert subscription.get(PATIENCE).payload.splitlines() == [b'{ "a" : 1.10,', b"", b'"b":[ ] }']


@pytest.mark.parametrize("channel", ["a", "x" * 63, "Öl \"%s\" '$1'\\", "\u2028"], ids=ascii)
@pytest.mark.parametrize("kind", ["t", "öl: \u2028 %s"], ids=ascii)
def test_any_channel_and_type_arrive_as_they_were(
    hub: NotifyHub, subscribe: Subscribe, channel: str, kind: str
) -> None:
    subscription = subscribe(hub, channel, TENANT)
    hub.publish(channel, TENANT, 1, type=kind)
    event = subscription.get(PATIENCE)
    assert (event.channel, event.type) == (channel, kind)


def test_events_arrive_in_the_order_in_which_they_were_published(make_hub: MakeHub, subscribe: Subscribe) -> None:
    hub = make_hub(buffer_size=200)
    subscription = subscribe(hub, "orders", TENANT)
    for number in range(100):
        hub.publish("orders", TENANT, number)
    hub.publish_many([("orders", TENANT, number) for number in range(100, 200)])
    assert payloads(subscription, 200) == list(range(200))


def test_all_subscriptions_see_the_same_order_however_many_publish(
    make_hub: MakeHub, subscribe: Subscribe, pool: ThreadPoolExecutor
) -> None:
    hub = make_hub(buffer_size=1000)
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "orders", TENANT)

    def publish(writer: int) -> None:
        for number in range(50):
            hub.publish("orders", TENANT, [writer, number])

    for future in [pool.submit(publish, writer) for writer in range(4)]:
        future.result(PATIENCE)
    seen = payloads(one, 200)
    assert seen == payloads(other, 200)
    for writer in range(4):
        assert [number for who, number in seen if who == writer] == list(range(50))


def test_many_events_of_several_topics_go_in_one_call(hub: NotifyHub, subscribe: Subscribe) -> None:
    one, other = subscribe(hub, ["orders", "stock"], TENANT), subscribe(hub, "orders", OTHER)
    hub.publish_many([("orders", TENANT, 1), ("orders", OTHER, 2), ("stock", TENANT, 3, "moved")])
    assert payloads(one, 2) == [1, 3]
    assert payloads(other, 1) == [2]


def test_publishing_nothing_is_allowed(hub: NotifyHub) -> None:
    hub.publish_many([])
    assert hub.stats().received == 0


def test_two_publishes_of_the_same_are_two_events_with_an_id_each(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish_many([("orders", TENANT, 1), ("orders", TENANT, 1)])
    hub.publish("orders", TENANT, 1)
    events = [subscription.get(PATIENCE) for _ in range(3)]
    assert [event.json() for event in events] == [1, 1, 1]
    assert len({event.id for event in events}) == 3


def test_every_subscription_of_a_topic_gets_its_events(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscriptions = [subscribe(hub, "orders", TENANT) for _ in range(5)]
    hub.publish("orders", TENANT, 1)
    assert [payloads(each, 1) for each in subscriptions] == [[1]] * 5


def test_a_subscription_to_several_channels_gets_all_of_them_in_order(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, iter(["orders", "stock"]), TENANT)
    hub.publish_many([("stock", TENANT, 1), ("orders", TENANT, 2), ("stock", TENANT, 3)])
    assert payloads(subscription, 3) == [1, 2, 3]


def test_a_channel_that_is_named_twice_delivers_once(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, ["orders", "orders"], TENANT)
    hub.publish_many([("orders", TENANT, 1), ("orders", TENANT, 2)])
    assert payloads(subscription, 2) == [1, 2]


SAME: list[list[TenantId]] = [
    [TENANT, str(TENANT), str(TENANT).upper()],
    [7, "7"],
    [None, uuid.UUID(int=0)],
    ['it\'s "größe" \\ %s'],
    [TENANT.hex],
]


@pytest.mark.parametrize("same", SAME, ids=lambda same: ascii(same[0]))
def test_a_tenant_is_a_uuid_a_number_a_text_or_none(hub: NotifyHub, subscribe: Subscribe, same: list[TenantId]) -> None:
    subscriptions = [subscribe(hub, "orders", tenant) for tenant in same]
    hub.publish_many([("orders", tenant, number) for number, tenant in enumerate(same)])
    others = [tenant for other in SAME if other is not same for tenant in other]
    hub.publish_many([("orders", tenant, "another's") for tenant in others])
    for tenant in same:
        hub.publish("orders", tenant, "one by one")
    for subscription in subscriptions:
        assert payloads(subscription, 2 * len(same)) == [*range(len(same)), *["one by one"] * len(same)]


def test_several_tenants_are_followed_in_one_order(hub: NotifyHub, subscribe: Subscribe) -> None:
    several = subscribe(hub, ["orders", "stock"], [TENANT, "acme", 7])
    topics = [(channel, tenant) for channel in ("orders", "stock") for tenant in (OTHER, "acme", 7, TENANT, None)]
    hub.publish_many([(*topic, number) for number, topic in enumerate(topics)])
    followed = [number for number, (_, tenant) in enumerate(topics) if tenant not in (OTHER, None)]
    assert payloads(several, len(followed)) == followed
    settle(hub)
    assert rest(several) == []


def test_no_event_reaches_another_tenant_or_another_channel(hub: NotifyHub, subscribe: Subscribe) -> None:
    other_tenant, other_channel = subscribe(hub, "orders", OTHER), subscribe(hub, "stock", TENANT)
    hub.publish_many([("orders", TENANT, number) for number in range(50)])
    hub.publish_many([("orders", OTHER, "mine"), ("stock", TENANT, "mine")])
    assert payloads(other_tenant, 1) == payloads(other_channel, 1) == ["mine"]
    settle(hub)
    assert [rest(other_tenant), rest(other_channel)] == [[], []]


def test_values_that_json_does_not_have_are_converted_by_the_hubs_own_function(make_hub: MakeHub) -> None:
    hub = make_hub(json_default=str)
    subscription = hub.subscribe("orders", TENANT)
    hub.publish("orders", TENANT, {"tenant": TENANT})
    hub.publish_many([("orders", TENANT, [Decimal("1.10")])])
    assert payloads(subscription, 2) == [{"tenant": str(TENANT)}, ["1.10"]]


# Refusals.


REFUSED: list[tuple[str, tuple[Any, ...], type[PgFanoutError]]] = [
    ("empty channel", ("", TENANT, 1), InvalidEventError),
    ("long channel", ("é" * 32, TENANT, 1), InvalidEventError),
    ("control character", ("a\x00", TENANT, 1), InvalidEventError),
    ("tenant", ("orders", "a\n", 1), InvalidEventError),
    ("tenant of another type", ("orders", 7.0, 1), InvalidEventError),
    ("several tenants", ("orders", [TENANT, OTHER], 1), InvalidEventError),
    ("reserved type", ("orders", TENANT, 1, "close"), InvalidEventError),
    ("line in type", ("orders", TENANT, 1, "a\r"), InvalidEventError),
    ("not JSON", ("orders", TENANT, b"{"), InvalidEventError),
    ("NUL", ("orders", TENANT, {"a": "\x00"}), InvalidEventError),
    ("not serialisable", ("orders", TENANT, object()), InvalidEventError),
    ("too large", ("orders", TENANT, "x" * NOTIFY_LIMIT), PayloadTooLargeError),
]


@pytest.mark.parametrize(("event", "error"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_wrong_event_is_refused_and_nothing_is_sent(
    hub: NotifyHub, subscribe: Subscribe, event: tuple[Any, ...], error: type[PgFanoutError]
) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    with pytest.raises(error):
        hub.publish_many([("orders", TENANT, "before"), event])
    with pytest.raises(error):
        hub.publish(*event[:3], type=(*event, "")[3])
    hub.publish("orders", TENANT, "after")
    assert payloads(subscription, 1) == ["after"]


def test_the_largest_payload_arrives_and_one_byte_more_is_refused(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    with pytest.raises(PayloadTooLargeError) as caught:
        hub.publish("orders", TENANT, "☃" + "x" * NOTIFY_LIMIT)
    room = NOTIFY_LIMIT - (caught.value.size - NOTIFY_LIMIT)
    with pytest.raises(PayloadTooLargeError) as caught:
        hub.publish("orders", TENANT, "☃" + "x" * (room + 1))
    assert (caught.value.size, caught.value.limit) == (8000, 7999)
    hub.publish("orders", TENANT, "☃" + "x" * room)
    assert payloads(subscription, 1) == ["☃" + "x" * room]


@pytest.mark.parametrize(
    ("channels", "tenant"), [("", TENANT), ([], TENANT), ("orders", ""), ("a\n", TENANT), ("orders", [])]
)
def test_a_wrong_subscription_is_refused(hub: NotifyHub, channels: Any, tenant: Any) -> None:
    with pytest.raises(InvalidEventError):
        hub.subscribe(channels, tenant)
    assert hub.stats().subscriptions == 0


# What others notify.

UNROUTABLE: list[dict[str, Any]] = [
    *({"channel": channel} for channel in ("", "x" * 64, "ü" * 32, "a\tb", 7, None)),
    *({"tenant_id": tenant} for tenant in ("", "x" * 64, "a\n", 7, None)),
]
# What follows the tenant in an envelope.
BROKEN = [
    '"payload":{"id":4',
    '"payload":' + "[" * 7000,
    '"payload":NaN}',
    '"payload":1,"type":"close"}',
    '"payload":1,"type":"a\\nb"}',
    '"payload":1,"id":7}',
    '"payload":1,"type":"%s"}' % ("x" * 256),
    '"payload":1' + ',"x":1' * 32 + "}",
    '"type":"without a payload"}',
]


def until_last(subscriber: Subscriber) -> list[Any]:
    """The payloads up to "last", with "refresh" for a refresh."""
    got: list[Any] = []
    while (event := subscriber.get(PATIENCE)) is REFRESH_EVENT or event.json() != "last":
        got.append("refresh" if event is REFRESH_EVENT else event.json())
    return got


def notify(hub: NotifyHub, text: str) -> None:
    """As somebody else who knows the channel would."""
    if isinstance(hub, PostgresHub) and hub.has_history:
        with hub._parameters.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_notify(%s, %s)", [hub._postgres_channel, text])
    else:
        core_of(hub).backend.send([text], None)


@OPEN_TO_OTHERS
def test_an_envelope_of_the_go_hub_is_an_event(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    fields = {"channel": "orders", "tenant_id": str(TENANT), "payload": {"id": 42}, "type": "x", "version": [2]}
    notify(hub, json.dumps(fields))
    assert subscription.get(PATIENCE) == Event("orders", b'{"id": 42}', "x")


@OPEN_TO_OTHERS
@pytest.mark.parametrize("text", ["", "hello", "{}", "[" * 7000], ids=lambda text: text[:9])
def test_what_is_no_envelope_is_told_as_a_gap_and_the_hub_goes_on(
    hub: NotifyHub, subscribe: Subscribe, text: str
) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "stock", OTHER)
    notify(hub, text)
    hub.publish_many([("orders", TENANT, 1), ("stock", OTHER, 2)])
    assert [one.get(PATIENCE), other.get(PATIENCE)] == [REFRESH_EVENT, REFRESH_EVENT]
    assert [payloads(one, 1), payloads(other, 1)] == [[1], [2]]
    assert hub.stats().undecodable == 1
    assert hub.listening


@pytest.mark.parametrize("fields", UNROUTABLE, ids=lambda fields: ", ".join(map(str, fields))[:20])
def test_what_nobody_can_follow_is_no_gap(hub: NotifyHub, subscribe: Subscribe, fields: dict[str, Any]) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    notify(hub, json.dumps({"channel": "orders", "tenant_id": str(TENANT), "payload": {}, **fields}))
    hub.publish("orders", TENANT, 1)
    assert payloads(subscription, 1) == [1]
    assert (hub.stats().unroutable, hub.stats().undecodable, hub.stats().gaps) == (1, 0, 0)


@OPEN_TO_OTHERS
@pytest.mark.parametrize("rest", BROKEN, ids=lambda rest: rest[:12])
def test_a_broken_event_is_a_gap_of_its_topic_alone(hub: NotifyHub, subscribe: Subscribe, rest: str) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "orders", OTHER)
    notify(hub, f'{{"channel":"orders","tenant_id":"{TENANT}",{rest}')
    hub.publish_many([("orders", TENANT, 1), ("orders", OTHER, 2)])
    assert one.get(PATIENCE) is REFRESH_EVENT
    assert [payloads(one, 1), payloads(other, 1)] == [[1], [2]]


@OPEN_TO_OTHERS
def test_gaps_that_anybody_can_cause_are_told_at_a_bounded_rate(hub: NotifyHub, subscribe: Subscribe) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "stock", OTHER)
    for number in range(50):
        notify(hub, "no envelope")
        hub.publish_many([("orders", TENANT, number), ("stock", OTHER, number)])
    eventually(lambda: hub.stats().undecodable == 50 and core_of(hub).sink.pause() is None)
    hub.publish_many([("orders", TENANT, "last"), ("stock", OTHER, "last")])
    for subscriber in (one, other):
        got = until_last(subscriber)
        assert got[0] == "refresh"
        assert 2 <= got.count("refresh") <= hub.stats().gaps < 25
        numbers = [each for each in got if isinstance(each, int)]
        assert numbers == sorted(numbers)
        for before, after in pairwise([-1, *numbers]):
            between = got[got.index(before) if before >= 0 else 0 : got.index(after)]
            assert after == before + 1 or "refresh" in between


@pytest.mark.postgres
@pytest.mark.parametrize("make_hub", [pytest.param(history, id="history")], indirect=True)
def test_a_hub_whose_history_has_every_event_loses_none_to_what_others_notify(
    hub: NotifyHub, subscribe: Subscribe
) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "stock", OTHER)
    envelope = json.dumps({"channel": "orders", "tenant_id": str(TENANT), "payload": "forged"})
    for number in range(20):
        notify(hub, "no envelope")
        notify(hub, envelope)
        hub.publish_many([("orders", TENANT, number), ("stock", OTHER, number)])
    hub.publish_many([("orders", TENANT, "last"), ("stock", OTHER, "last")])
    got = until_last(one)
    assert [each for each in got if each != "refresh"] == list(range(20))
    assert 1 <= got.count("refresh") < 15
    assert until_last(other) == list(range(20))
    # The log may be read further than the notifications that have arrived.
    eventually(lambda: (hub.stats().undecodable, hub.stats().unlogged) == (20, 20))


@OPEN_TO_OTHERS
@pytest.mark.parametrize("kind", ["close", "refresh", "pgfanout.cursor"])
def test_a_control_event_cannot_be_forged(hub: NotifyHub, subscribe: Subscribe, kind: str) -> None:
    subscription = subscribe(hub, "orders", TENANT)
    notify(hub, json.dumps({"channel": "orders", "tenant_id": str(TENANT), "payload": {}, "type": kind}))
    hub.publish("orders", TENANT, 1)
    assert subscription.get(PATIENCE) is REFRESH_EVENT  # the gap that every undecodable text is
    assert payloads(subscription, 1) == [1]
    assert hub.stats().undecodable == 1


# Bounds.


def test_who_does_not_read_gets_one_refresh_and_what_came_later(make_hub: MakeHub, subscribe: Subscribe) -> None:
    hub = make_hub(buffer_size=3)
    subscription = subscribe(hub, "orders", TENANT, reads=False)
    hub.publish_many([("orders", TENANT, number) for number in range(6)])
    settle(hub)
    first, *later = rest(subscription)
    assert first is REFRESH_EVENT
    assert [event.json() for event in later] == [4, 5]
    assert hub.stats().refreshes == 1


def test_who_does_not_read_costs_nobody_else_anything(make_hub: MakeHub, subscribe: Subscribe) -> None:
    hub = make_hub(buffer_size=2)
    stalled, reading = subscribe(hub, "orders", TENANT, reads=False), subscribe(hub, "orders", TENANT)
    for number in range(20):
        hub.publish("orders", TENANT, number)
        assert payloads(reading, 1) == [number]
    assert stalled.get(0) is REFRESH_EVENT


@OPEN_TO_OTHERS
def test_a_gap_stands_where_it_was_among_what_waits(hub: NotifyHub, subscribe: Subscribe) -> None:
    subscription = subscribe(hub, "orders", TENANT, reads=False)
    hub.publish("orders", TENANT, 1)
    notify(hub, "no envelope")
    hub.publish("orders", TENANT, 2)
    settle(hub)
    first, gap, second = rest(subscription)
    assert (first.json(), gap, second.json()) == (1, REFRESH_EVENT, 2)


# Coming and going.


def test_who_has_left_gets_nothing_more_and_the_others_do(hub: NotifyHub, subscribe: Subscribe) -> None:
    leaving, staying = subscribe(hub, "orders", TENANT), subscribe(hub, "orders", TENANT)
    leaving.close()
    hub.publish("orders", TENANT, 1)
    assert payloads(staying, 1) == [1]
    assert rest(leaving) == [CLOSE_EVENT]
    assert hub.stats().subscriptions == 1


def test_who_comes_late_gets_what_is_published_from_then_on(hub: NotifyHub, subscribe: Subscribe) -> None:
    early = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert payloads(early, 1) == [1]
    late = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, 2)
    assert payloads(early, 1) == payloads(late, 1) == [2]


def churn(hub: NotifyHub, subscribe: Subscribe, stop: threading.Event) -> None:
    """Come and go on the busy topic until told to stop."""
    while not stop.is_set():
        with closing(subscribe(hub, ["orders", "stock"], TENANT)) as passing:
            rest(passing)


def burst(hub: NotifyHub, subscribe: Subscribe, pool: ThreadPoolExecutor, count: int) -> None:
    """Publish so many numbers while 20 threads come and go."""
    stop = threading.Event()
    visitors: list[Future[None]] = [pool.submit(churn, hub, subscribe, stop) for _ in range(20)]
    try:
        for start in range(0, count, 50):
            hub.publish_many([("orders", TENANT, number) for number in range(start, start + 50)])
        settle(hub)
    finally:
        stop.set()
    for visitor in visitors:
        visitor.result(PATIENCE)


def test_nothing_is_lost_while_20_threads_come_and_go(
    make_hub: MakeHub, subscribe: Subscribe, pool: ThreadPoolExecutor
) -> None:
    hub = make_hub(buffer_size=2000)
    steady = subscribe(hub, "orders", TENANT)
    burst(hub, subscribe, pool, 1000)
    assert payloads(steady, 1000) == list(range(1000))
    assert hub.stats().subscriptions == 1


def test_every_gap_is_told_to_a_slow_reader_while_20_threads_come_and_go(
    make_hub: MakeHub, subscribe: Subscribe, pool: ThreadPoolExecutor
) -> None:
    hub = make_hub(buffer_size=8)
    reader = pool.submit(list, subscribe(hub, "orders", TENANT))
    burst(hub, subscribe, pool, 1000)
    hub.close()
    *events, end = reader.result(PATIENCE)
    assert end is CLOSE_EVENT
    last, gap = -1, False
    for event in events:
        if event is REFRESH_EVENT:
            gap = True
        else:
            assert event.json() > last if gap else event.json() == last + 1
            last, gap = event.json(), False
    assert gap or last == 999


# Starting, running, closing.


def listeners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("pgfanout-listener")}


def test_a_new_hub_has_no_thread_and_does_not_listen(make_hub: MakeHub) -> None:
    before = threading.enumerate()
    hub = make_hub()
    assert set(threading.enumerate()) <= set(before)
    assert (hub.listening, hub.closed, hub.stats().listening) == (False, False, False)


def test_start_returns_once_the_hub_listens_and_may_be_called_again(hub: NotifyHub) -> None:
    before = listeners()
    hub.start()
    since = hub.stats().since
    hub.start(0)
    assert hub.listening
    assert hub.stats().since == since
    assert len(listeners() - before) == 1


def test_threads_that_start_and_subscribe_at_once_share_one_listener(
    hub: NotifyHub, subscribe: Subscribe, pool: ThreadPoolExecutor
) -> None:
    before = listeners()
    together = threading.Barrier(16, timeout=PATIENCE)

    def come() -> Subscriber:
        together.wait()
        return subscribe(hub, "orders", TENANT)

    futures = [pool.submit(come) for _ in range(16)]
    subscriptions = [future.result(PATIENCE) for future in futures]
    assert len(listeners() - before) == 1
    hub.publish("orders", TENANT, 1)
    assert [payloads(each, 1) for each in subscriptions] == [[1]] * 16


def test_closing_ends_every_subscription_after_what_it_holds(hub: NotifyHub, subscribe: Subscribe) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, "stock", OTHER)
    hub.publish("orders", TENANT, 1)
    settle(hub)
    hub.close()
    *events, end = list(one)
    assert [event.json() for event in events] == [1]
    assert end is CLOSE_EVENT
    assert list(other) == [CLOSE_EVENT]
    assert (hub.closed, hub.listening, hub.stats().subscriptions) == (True, False, 0)


def test_closing_wakes_every_thread_that_waits_for_an_event(hub: NotifyHub, pool: ThreadPoolExecutor) -> None:
    subscription = hub.subscribe("orders", TENANT)
    futures = [pool.submit(subscription.get) for _ in range(2)] + [pool.submit(hub.subscribe("a", OTHER).get)]
    hub.close()
    assert [future.result(PATIENCE) for future in futures] == [CLOSE_EVENT] * 3


def test_closing_stops_the_listener(hub: NotifyHub) -> None:
    before = listeners()
    hub.start()
    (listener,) = listeners() - before
    hub.close()
    listener.join(PATIENCE)
    assert not listener.is_alive()


def test_closing_may_be_repeated_and_done_by_several_threads(hub: NotifyHub, pool: ThreadPoolExecutor) -> None:
    hub.start()
    assert [future.result(PATIENCE) for future in [pool.submit(hub.close) for _ in range(6)]] == [None] * 6
    hub.close()
    assert hub.closed


def test_a_hub_that_never_started_can_be_closed(hub: NotifyHub) -> None:
    hub.close()
    assert hub.closed


@pytest.mark.parametrize("started", [False, True], ids=["never started", "started"])
def test_a_closed_hub_refuses_everything(hub: NotifyHub, started: bool) -> None:
    if started:
        hub.start()
    hub.close()
    calls: list[Callable[[], object]] = [
        hub.start,
        hub.run,
        lambda: hub.subscribe("orders", TENANT),
        lambda: hub.publish("orders", TENANT, 1),
        lambda: hub.publish_many([("orders", TENANT, 1)]),
    ]
    for call in calls:
        with pytest.raises(HubClosedError):
            call()


def test_who_publishes_in_other_threads_learns_of_the_close(hub: NotifyHub, pool: ThreadPoolExecutor) -> None:
    together = threading.Barrier(5, timeout=PATIENCE)

    def publish() -> None:
        together.wait()
        while True:
            hub.publish("orders", TENANT, 1)

    futures = [pool.submit(publish) for _ in range(4)]
    hub.start()
    together.wait()
    hub.close()
    assert [type(future.exception(PATIENCE)) for future in futures] == [HubClosedError] * 4


def test_who_comes_while_the_hub_closes_gets_the_end_or_is_refused(
    hub: NotifyHub, subscribe: Subscribe, pool: ThreadPoolExecutor
) -> None:
    together = threading.Barrier(9, timeout=PATIENCE)

    def come() -> list[Subscriber]:
        came: list[Subscriber] = []
        together.wait()
        while True:
            try:
                came.append(subscribe(hub, "orders", TENANT))
            except HubClosedError:
                return came

    hub.start()
    futures = [pool.submit(come) for _ in range(8)]
    together.wait()
    hub.close()
    assert all(each.get(PATIENCE) is CLOSE_EVENT for future in futures for each in future.result(PATIENCE))


def test_run_listens_until_the_close(hub: NotifyHub, subscribe: Subscribe, pool: ThreadPoolExecutor) -> None:
    future = pool.submit(hub.run)
    eventually(lambda: hub.listening)
    subscription = subscribe(hub, "orders", TENANT)
    hub.publish("orders", TENANT, 1)
    assert payloads(subscription, 1) == [1]
    assert not future.done()
    hub.close()
    assert future.result(PATIENCE) is None
    assert subscription.get(PATIENCE) is CLOSE_EVENT


def test_run_may_join_a_hub_that_was_started_already(hub: NotifyHub, pool: ThreadPoolExecutor) -> None:
    before = listeners()
    hub.start()
    future = pool.submit(hub.run)
    eventually(lambda: core_of(hub).lifecycle._waiting == 1)
    assert len(listeners() - before) == 1
    assert not future.done()
    hub.close()
    assert future.result(PATIENCE) is None


def test_a_with_block_closes_the_hub(make_hub: MakeHub, subscribe: Subscribe) -> None:
    with make_hub() as hub:
        subscription = subscribe(hub, "orders", TENANT)
    assert hub.closed
    assert list(subscription) == [CLOSE_EVENT]


def test_the_counters_tell_what_happened(hub: NotifyHub, subscribe: Subscribe) -> None:
    one, other = subscribe(hub, "orders", TENANT), subscribe(hub, ["orders", "stock"], TENANT)
    hub.publish_many([("orders", TENANT, 1), ("stock", TENANT, 2), ("nobody", TENANT, 3), ("orders", TENANT, 4)])
    assert payloads(one, 2) == [1, 4]
    assert payloads(other, 3) == [1, 2, 4]
    stats = eventually(lambda: stats if (stats := hub.stats()).delivered == 5 else None)
    assert stats is not None
    assert (stats.received, stats.undecodable, stats.refreshes, stats.gaps) == (4, 0, 0, 0)
    assert (stats.listening, stats.reconnects, stats.last_error, stats.subscriptions) == (True, 0, "", 2)
