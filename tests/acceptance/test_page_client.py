"""The page's client in real browsers, at a site that fails as the test says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import Browser, Tab
from tests.support.stub_site import BAD_GATEWAY, Reply, StubSite, StubStream
from tests.support.wait import eventually

LONG = 30.0
OPENING = "pgfanout.cursor"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def site() -> Iterator[StubSite]:
    with StubSite() as site:
        yield site


@pytest.fixture
def failing_tab(any_browser: Browser) -> Iterator[Tab]:
    """A window in each of the browsers whose page's own functions may fail."""
    tab = any_browser.tab()
    yield tab
    tab.close()


def seen(tab: Tab, name: str) -> Any:
    return tab.run(f"window.seen?.{name}")


def sees(tab: Tab, name: str, expected: object) -> None:
    """Wait until the page has seen that."""
    eventually(lambda: seen(tab, name) == expected, LONG, interval=0.05)


def ends_with(tab: Tab, name: str, last: object) -> None:
    """Wait until that is the last that the page has seen."""
    eventually(lambda: seen(tab, f"{name}.at(-1)") == last, LONG, interval=0.05)


def stream(site: StubSite, number: int = 1) -> StubStream:
    """Wait for the stream of that number."""
    eventually(lambda: len(site.streams) >= number, LONG)
    return site.streams[number - 1]


def opened(site: StubSite, tab: Tab, loads: int = 1) -> StubStream:
    """Open the page, and wait until it has its state and follows."""
    tab.open(site.url)
    first = stream(site)
    first.send("{}", type=OPENING, id="start")
    eventually(lambda: len(seen(tab, "states")) == loads, LONG)
    return first


def follows(site: StubSite, tab: Tab) -> None:
    """The last stream's next event is shown."""
    before = len(seen(tab, "events"))
    site.streams[-1].send('"after"')
    eventually(lambda: seen(tab, "events")[before:] == [["order", "after"]], LONG)


# Loads.


FAILED_LOADS = {
    "a status": (500, JSON, b'{"error": "the database does not answer"}'),
    "HTML": (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"),
    "not JSON": (200, JSON, b'["half'),
}


@pytest.mark.parametrize("failure", FAILED_LOADS.values(), ids=list(FAILED_LOADS))
def test_a_load_that_fails_is_retried_until_it_succeeds(site: StubSite, tab: Tab, failure: Reply) -> None:
    site.loads = [failure] * 3
    opened(site, tab)
    assert seen(tab, "states") == ["state"]
    assert site.asked("GET /orders") == 4
    assert len([line for line in seen(tab, "console") if "/events: load failed" in line]) == 3
    follows(site, tab)


def test_a_load_that_throws_is_retried(site: StubSite, tab: Tab) -> None:
    site.script = "let tries = 0;"
    site.options = "load: () => { if (++tries < 3) throw new Error('no'); return tries; },"
    opened(site, tab)
    assert seen(tab, "states") == [3]


def test_a_load_that_never_answers_is_aborted_and_retried(site: StubSite, tab: Tab) -> None:
    site.script = """
      const timeout = AbortSignal.timeout;
      AbortSignal.timeout = (time) => timeout.call(AbortSignal, time / 20);
      window.signals = [];
    """
    site.options = "load: (signal) => signals.push(signal) < 3 ? new Promise(() => {}) : 'answered',"
    opened(site, tab)
    assert seen(tab, "states") == ["answered"]
    assert tab.run("signals.map((signal) => signal.aborted)") == [True, True, False]


def test_events_of_a_load_are_held_back_until_it_is_done(site: StubSite, tab: Tab) -> None:
    site.script = "window.answers = [];"
    site.options = "load: () => new Promise((resolve) => answers.push(resolve)),"
    tab.open(site.url)
    first = stream(site)
    first.send("{}", type=OPENING, id="start")
    eventually(lambda: tab.run("answers?.length") == 1, LONG)
    for number in (1, 2):
        first.send(f"{number}")
    first.send("{}", type="refresh")
    sees(tab, "statuses", ["refreshing"])
    assert seen(tab, "events") == []
    tab.run("answers.shift()('first')")
    sees(tab, "events", [["order", 1], ["order", 2]])
    first.send("3")  # it comes before the second load, or is held back during that
    eventually(lambda: tab.run("answers.length") == 1, LONG)
    tab.run("answers.shift()('second')")
    sees(tab, "states", ["first", "second"])
    sees(tab, "statuses", ["refreshing", "live"])


def test_a_reconnect_without_history_is_one_load(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    first.end()
    second = stream(site, 2)
    assert second.last_event_id == "start"
    site.state = b'"newer"'
    second.send("{}", type="refresh", id="start")
    sees(tab, "states", ["state", "newer"])
    follows(site, tab)
    assert site.asked("GET /orders") == 2


def test_a_page_with_a_cursor_loads_on_a_refresh_only(site: StubSite, tab: Tab) -> None:
    site.options = "cursor: '7',"
    tab.open(site.url)
    first = stream(site)
    assert first.last_event_id == "7"
    first.send("{}", type=OPENING, id="7")
    first.send('"eight"', id="8")
    sees(tab, "events", [["order", "eight"]])
    first.end()
    second = stream(site, 2)
    assert second.last_event_id == "8"
    second.send("{}", type=OPENING, id="8")
    second.send('"nine"', id="9")
    sees(tab, "events", [["order", "eight"], ["order", "nine"]])
    assert site.asked("GET /orders") == 0
    second.send("{}", type="refresh")
    sees(tab, "states", ["state"])


# Events.


def test_an_event_that_is_not_json_is_named_and_loads(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    first.send("<b>shipped</b>")
    eventually(lambda: len(seen(tab, "states")) == 2, LONG)
    assert '/events: event "order" is not JSON' in "\n".join(seen(tab, "console"))
    assert seen(tab, "events") == []
    follows(site, tab)


@pytest.mark.parametrize("type", ["open", "error"])
def test_an_event_may_have_the_type_of_the_browser_s_own(site: StubSite, tab: Tab, type: str) -> None:
    site.options = f"types: ['{type}'],"
    first = opened(site, tab)
    first.send("1", type=type)
    sees(tab, "events", [[type, 1]])
    assert seen(tab, "statuses") == ["live"]


@pytest.mark.parametrize("name", ["onState", "onEvent", "onStatus"])
def test_a_function_of_the_page_that_throws_stops_nothing(site: StubSite, failing_tab: Tab, name: str) -> None:
    record = {
        "onState": "(state) => { seen.states.push(state); throw new Error('mine'); },",
        "onEvent": "(type, payload) => { seen.events.push([type, payload]); throw new Error('mine'); },",
        "onStatus": "() => { throw new Error('mine'); },",
    }
    site.options = f"{name}: {record[name]}"
    opened(site, failing_tab)
    follows(site, failing_tab)
    follows(site, failing_tab)
    assert any("mine" in error for error in failing_tab.errors())


# Streams that are refused.


REFUSALS = {
    "204": (204, {}, b""),
    "401": (401, {}, b""),
    "403": (403, {}, b""),
    "login page": (302, {"Location": "/login"}, b""),
    "login page that is not there": (302, {"Location": "/nowhere"}, b""),
    "login at another site": (302, {"Location": "http://localhost:9/login"}, b""),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_a_session_that_has_expired_is_told_once_and_ends_all_requests(
    site: StubSite, tab: Tab, refusal: Reply
) -> None:
    first = opened(site, tab)
    site.refusal = refusal
    first.end()
    sees(tab, "expired", 1)
    asked = list(site.requests)
    tab.run("new Promise((resolve) => setTimeout(resolve, 3000))")  # longer than the feed's waits at the beginning
    assert site.requests == asked
    assert seen(tab, "expired") == 1
    assert seen(tab, "statuses")[-1] == "expired"


def test_a_load_that_leads_to_the_login_page_tells_that_the_session_has_expired(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    site.refusal = site.replies["/orders"] = REFUSALS["login page"]
    site.loads = [REFUSALS["login page"]]
    first.send("{}", type="refresh")
    sees(tab, "expired", 1)
    assert seen(tab, "states") == ["state"]


def test_a_load_that_is_forbidden_while_the_stream_is_not_is_retried(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    site.loads = [(403, {}, b"")]
    first.send("{}", type="refresh")
    sees(tab, "states", ["state", "state"])
    assert seen(tab, "expired") == 0


def test_after_an_expired_session_the_feed_can_be_opened_again(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    site.refusal = REFUSALS["401"]
    first.end()
    sees(tab, "expired", 1)
    site.refusal = None
    tab.run("feed.open()")
    stream(site, 2).send("{}", type="refresh", id="start")
    eventually(lambda: len(seen(tab, "states")) == 2, LONG)
    follows(site, tab)


def test_a_bad_gateway_is_waited_for_with_growing_pauses(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    site.refusal = BAD_GATEWAY
    first.end()
    eventually(lambda: site.asked("GET /events") >= 5, LONG)
    site.refusal = None
    second = stream(site, 2)
    assert "last_event_id=start" in second.path
    second.send("{}", type="refresh", id="start")
    eventually(lambda: len(seen(tab, "states")) == 2, LONG)
    follows(site, tab)
    assert seen(tab, "expired") == 0


def test_a_stream_that_has_moved_is_followed(site: StubSite, tab: Tab) -> None:
    site.refusal = (308, {"Location": "/moved"}, b"")
    opened(site, tab)
    follows(site, tab)


# The page's life.


def test_closing_stops_everything_and_opening_goes_on(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    first.send('"one"', id="1")
    sees(tab, "events", [["order", "one"]])
    tab.run("feed.close()")
    tab.run("feed.close()")
    tab.run("feed.open()")
    tab.run("feed.open()")
    second = stream(site, 2)
    assert second.last_event_id == "1"
    second.send("{}", type="refresh", id="1")
    eventually(lambda: len(seen(tab, "states")) == 2, LONG)
    follows(site, tab)
    assert len(site.streams) == 2


def test_a_load_that_was_given_up_is_made_up_for(site: StubSite, tab: Tab) -> None:
    site.script = "window.signals = [];"
    site.options = "cursor: '7', load: (signal) => signals.push(signal) < 2 ? new Promise(() => {}) : 'state',"
    tab.open(site.url)
    stream(site).send("{}", type="refresh", id="8")
    eventually(lambda: tab.run("window.signals?.length") == 1, LONG)
    tab.run("feed.close()")
    tab.run("feed.open()")
    stream(site, 2).send("{}", type=OPENING, id="8")
    sees(tab, "states", ["state"])
    assert tab.run("signals[0].aborted")


def test_a_page_that_was_left_and_is_gone_back_to_follows_again(site: StubSite, tab: Tab) -> None:
    first = opened(site, tab)
    tab.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    first.send('"nobody hears it"')
    tab.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    second = stream(site, 2)
    second.send("{}", type="refresh", id="start")
    eventually(lambda: len(seen(tab, "states")) == 2, LONG)
    follows(site, tab)


def test_a_page_gets_its_state_though_no_stream_can_be_opened(site: StubSite, tab: Tab) -> None:
    site.refusal = BAD_GATEWAY
    tab.open(site.url)
    sees(tab, "states", ["state"])


# Shared tabs. tests/acceptance/test_shared_tabs.py has those of a real server.


@pytest.fixture
def beside(any_browser: Browser, tab: Tab) -> Iterator[Tab]:
    """Another window of the visitor who has `tab`."""
    other = any_browser.tab(beside=tab)
    try:
        yield other
        errors = other.errors()
    finally:
        other.close()
    assert errors == []


SHARED = "shared: 'ann', cursor: new URLSearchParams(location.search).get('cursor'),"


def follow_together(site: StubSite, leader: Tab, follower: Tab, cursor: str) -> StubStream:
    """Open the leader's page with the cursor 7, and the follower's with another one, until both follow."""
    leader.open(f"{site.url}/?cursor=7")
    first = stream(site)
    first.send("{}", type=OPENING, id="7")
    sees(leader, "statuses", ["live"])
    follower.open(f"{site.url}/?cursor={cursor}")
    ends_with(follower, "statuses", "live")
    return first


@pytest.mark.parametrize(
    ("cursor", "shown", "loads"),
    [
        ("7", ["eight", "nine", "ten"], 0),
        ("9", ["ten"], 0),  # its page has the rest
        ("5", ["eight", "nine", "ten"], 1),
        ("7-other", ["eight", "nine", "ten"], 1),
        ("", ["eight", "nine", "ten"], 1),
    ],
)
def test_a_tab_joins_its_leader_where_its_own_page_is(
    site: StubSite, tab: Tab, beside: Tab, cursor: str, shown: list[str], loads: int
) -> None:
    site.options = SHARED
    first = follow_together(site, tab, beside, cursor)
    for id, name in (("8", "eight"), ("9", "nine"), ("10", "ten")):
        first.send(f'"{name}"', id=id)
    sees(tab, "events", [["order", name] for name in ("eight", "nine", "ten")])
    sees(beside, "events", [["order", name] for name in shown])
    assert [len(seen(each, "states")) for each in (tab, beside)] == [0, loads]
    assert len(site.streams) == 1


def test_a_refresh_reaches_a_tab_that_was_ahead_of_its_leader(site: StubSite, tab: Tab, beside: Tab) -> None:
    site.options = SHARED
    first = follow_together(site, tab, beside, "9")
    first.send("{}", type="refresh", id="3")  # the log was restored to an earlier time
    first.send('"four"', id="4")
    for each in (tab, beside):
        sees(each, "states", ["state"])
    first.send('"five"', id="5")
    for each in (tab, beside):
        ends_with(each, "events", ["order", "five"])


def test_the_leader_s_last_request_is_the_last_of_all_tabs(site: StubSite, tab: Tab, beside: Tab) -> None:
    site.options = SHARED
    first = follow_together(site, tab, beside, "7")
    site.refusal = REFUSALS["401"]
    first.end()
    for each in (tab, beside):
        sees(each, "expired", 1)
    tab.run("new Promise((resolve) => setTimeout(() => resolve(true), 3000))")
    assert site.requests == ["GET /events", "GET /events", "HEAD /events"]


def test_tabs_see_that_the_leader_has_lost_its_stream(site: StubSite, tab: Tab, beside: Tab) -> None:
    site.options = SHARED
    first = follow_together(site, tab, beside, "7")
    site.refusal = BAD_GATEWAY
    first.end()
    for each in (tab, beside):
        ends_with(each, "statuses", "reconnecting")
    site.refusal = None
    stream(site, 2).send("{}", type=OPENING, id="7")
    for each in (tab, beside):
        ends_with(each, "statuses", "live")
    assert len(site.streams) == 2


def test_tabs_with_other_types_do_not_share(site: StubSite, tab: Tab, beside: Tab) -> None:
    site.options = "cursor: '7', shared: 'ann', types: [new URLSearchParams(location.search).get('type')],"
    for number, (each, type) in enumerate([(tab, "order"), (beside, "stock")], 1):
        each.open(f"{site.url}/?type={type}")
        stream(site, number).send(f'"{type}"', type=type, id="8")
        sees(each, "events", [[type, type]])
