"""How clients that aren't browsers read an event stream, where they differ from the standard: models of their rules.

Each takes the bytes of one connection and returns what it made of them.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Reading(NamedTuple):
    """What a client's program is given, what it would send as its last event id, and how long it waits."""

    messages: list[tuple[str, str]]
    """Type and data, as the client has them."""
    last_event_id: str
    retry: int | None
    """Milliseconds."""


def fetch_event_source(stream: bytes) -> Reading:
    """npm's @microsoft/fetch-event-source 2 (parse.js): each blank line is a message. Id and retry count at once."""
    messages, last, retry = [], "", None
    data = kind = ""
    for name, value in _fields(stream):
        if name is None:
            messages.append((kind, data))
            data = kind = ""
        elif name == "data":
            data = f"{data}\n{value}" if data else value
        elif name == "event":
            kind = value
        elif name == "id":
            last = value
        elif name == "retry" and value.isdigit():
            retry = int(value)
    return Reading(messages, last, retry)


def htmx(stream: bytes) -> Reading:
    """npm's htmx.org 4 (ext/hx-sse.js): a block without event and data is dropped, and its retry with it."""
    messages, last, retry = [], "", None
    data: list[str] = []
    kind, asked = "", None
    for name, value in _fields(stream):
        if name is None:
            if data or kind:
                messages.append((kind, "\n".join(data)))
                retry = asked if asked is not None else retry
            data, kind, asked = [], "", None
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            last = value
        elif name == "retry" and value.isdigit():
            asked = int(value)
    return Reading(messages, last, retry)


def firefox(stream: bytes) -> Reading:
    """Firefox, and npm's eventsource 3 and newer: the id of a block without data is dropped."""
    messages, last, retry = [], "", None
    data: list[str] = []
    kind = id = ""
    for name, value in _fields(stream):
        if name is None:
            if data:
                messages.append((kind, "\n".join(data)))
                last = id or last
            data, kind, id = [], "", ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            id = value
        elif name == "retry" and value.isdigit():
            retry = int(value)
    return Reading(messages, last, retry)


def _fields(stream: bytes) -> list[tuple[str | None, str]]:
    """The fields of all whole lines; None stands for a blank line. Comments and lines without a colon are left out."""
    fields: list[tuple[str | None, str]] = []
    for line in re.split("\r\n|\r|\n", stream.decode())[:-1]:
        name, colon, value = line.partition(":")
        if not line:
            fields.append((None, ""))
        elif name and colon:
            fields.append((name, value.removeprefix(" ")))
    return fields
