"""The tests' own parser and client, against the examples of the WHATWG standard (HTML, 9.2)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.ports import LOOPBACK
from tests.support.sse import EventSource, EventStreamParser, SentEvent, parse


def message(data: str, last_event_id: str = "") -> SentEvent:
    return SentEvent("message", data, last_event_id)


STANDARD_EXAMPLES = [
    pytest.param(
        b"data: This is the first message.\n\n"
        b"data: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            message("This is the first message."),
            message("This is the second message, it\nhas two lines."),
            message("This is the third message."),
        ],
        id="three messages",
    ),
    pytest.param(
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [SentEvent("add", "73857293", ""), SentEvent("remove", "2153", ""), SentEvent("add", "113411", "")],
        id="types",
    ),
    pytest.param(b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")], id="one event of three lines"),
    pytest.param(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [message("first event", "1"), message("second event")],
        id="comment, ids, and an end that is no blank line",
    ),
    pytest.param(b"data\n\ndata\ndata\n\ndata:", [message(""), message("\n")], id="empty data"),
    pytest.param(b"data:test\n\ndata: test\n\n", [message("test"), message("test")], id="the space is optional"),
]

RULES = [
    pytest.param(b"\xef\xbb\xbfdata: x\n\n", [message("x")], id="one BOM is ignored"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", [], id="two are not"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [message("a"), message("b"), message("c")], id="line ends"),
    pytest.param("data: a\u2028b\x0bc\x85d\n\n".encode(), [message("a\u2028b\x0bc\x85d")], id="no other line ends"),
    pytest.param(b"data: a\xffb\n\n", [message("a\ufffdb")], id="what is no UTF-8 is replaced"),
    pytest.param(b"id: 7\ndata: a\n\nid: 8\0\ndata: b\n\n", [message("a", "7"), message("b", "7")], id="NUL in an id"),
    pytest.param(b"id: 7\n\ndata: a\n\n", [message("a", "7")], id="an id without data counts"),
    pytest.param(b"event: x\n\ndata: a\n\n", [message("a")], id="a type without data does not"),
    pytest.param(b"Data: a\n data: b\nother: c\ndata: d\n\n", [message("d")], id="unknown fields are ignored"),
    pytest.param(b"data: a:b: c\n\n", [message("a:b: c")], id="only the first colon parts"),
]


@pytest.mark.parametrize(("stream", "events"), STANDARD_EXAMPLES + RULES)
def test_parses_a_whole_stream(stream: bytes, events: list[SentEvent]) -> None:
    assert parse(stream) == events


@pytest.mark.parametrize(("stream", "events"), STANDARD_EXAMPLES + RULES)
def test_parses_a_stream_byte_by_byte(stream: bytes, events: list[SentEvent]) -> None:
    assert parse(stream[i : i + 1] for i in range(len(stream))) == events


def test_dispatches_at_the_bare_cr_that_ends_a_block() -> None:
    parser = EventStreamParser()
    assert parser.feed(b"data: a\r\n\r") == [message("a")]
    assert parser.feed(b"\ndata: b\n\n") == [message("b")]


def test_records_comments_and_retries() -> None:
    parser = EventStreamParser()
    parser.feed(b": hello\n:\nretry: 1740\nretry: 12s\nretry\nretry: -1\n")
    assert parser.comments == [" hello", ""]
    assert (parser.retries, parser.retry) == ([1740], 1740)


@contextmanager
def answering(*parts: bytes, hold: bool = False) -> Iterator[str]:
    """A server that sends the same answer to its only client, and holds the connection when told to."""
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for part in parts:
                connection.sendall(part)
            if hold:
                done.wait(20)

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}/events?tenant=1"
        done.set()
        thread.join(20)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVary: a\r\nVary: b\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_client_reads_a_chunked_stream_to_its_proper_end() -> None:
    with answering(CHUNKED + b"9\r\ndata: ", b"a\n\n\r\n", b"A;x=y\r\ndata: b\n\n", b"\n\r\n0\r\n\r\n") as url:
        with EventSource(url) as source:
            assert (source.status, source.headers["vary"]) == (200, "a, b")
            assert source.events_until(lambda event: event.data == "b") == [message("a"), message("b")]
            assert source.wait_end(5) is True


def test_client_tells_a_chunked_stream_that_was_cut() -> None:
    with answering(CHUNKED + b"9\r\ndata: a\n\n\r\n") as url, EventSource(url) as source:
        assert source.wait_end(5) is False
        assert source.cut


def test_client_reads_a_stream_that_ends_with_the_connection() -> None:
    with answering(CLOSE + b"data: a\n\n") as url, EventSource(url) as source:
        assert source.wait_end(5) is True
        assert source.next_event() == message("a")
        with pytest.raises(AssertionError, match="has ended"):
            source.next_event(1)


def test_client_says_what_it_received_when_it_waits_in_vain() -> None:
    with answering(CLOSE + b": hi\n\ndata: a\n\n", hold=True) as url, EventSource(url) as source:
        source.next_event()
        source.assert_silent(0.05)
        with pytest.raises(AssertionError, match=r"no event within 0\.05 s.*1 events.*data='a'.*1 comments"):
            source.next_event(0.05)
        assert not source.ended


def test_events_of_the_librarys_own_types_are_left_out_and_their_ids_count() -> None:
    parser = EventStreamParser()
    stream = b"id: 1\nevent: pgfanout.cursor\ndata: {}\n\nid: 2\ndata: a\n\nid: 3\nevent: pgfanout.x\ndata: {}\n\n"
    assert parser.feed(stream) == [message("a", "2")]
    assert (parser.cursors, parser.last_event_id, parser.blocks) == (["1", "3"], "3", 3)


def test_firefox_takes_no_id_from_a_block_without_data() -> None:
    parser = EventStreamParser()
    parser.feed(b"id: 7\ndata: a\n\nid: 8\n\n")
    assert (parser.last_event_id, parser.dispatched_id) == ("8", "7")
