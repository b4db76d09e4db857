"""The asyncio way: Starlette and sse-starlette; one connection listens and feeds a bounded queue for each client.

An event is decoded and encoded once for all clients, sse-starlette passes the bytes on as they are, and what waits in
a queue leaves in one write. When a queue is full, its backlog gives way to one refresh, as in pgfanout.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from .topic import CHANNEL, POSTGRES_CHANNEL, TENANT

__all__ = ["app"]

BUFFER_SIZE = int(os.environ["PGFANOUT_BUFFER_SIZE"])
OPENING = b": open\n\n"
REFRESH = b"event: refresh\ndata: {}\n\n"

clients: set[asyncio.Queue[bytes]] = set()


def encode(event: dict[str, object]) -> bytes:
    data = json.dumps(event["payload"], separators=(",", ":"))
    frame: bytes = ServerSentEvent(data, id=str(event["id"]), sep="\n").encode()
    return frame


def offer(queue: asyncio.Queue[bytes], frame: bytes) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        frame = REFRESH
    queue.put_nowait(frame)


async def listen(connection: AsyncConnection) -> None:
    async for notify in connection.notifies():
        event = json.loads(notify.payload)
        if event["channel"] != CHANNEL or event["tenant_id"] != TENANT:
            continue
        frame = encode(event)
        for queue in clients:
            offer(queue, frame)


async def frames() -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(BUFFER_SIZE)
    clients.add(queue)
    try:
        yield OPENING
        while True:
            waiting = [await queue.get()]
            while not queue.empty():
                waiting.append(queue.get_nowait())
            yield b"".join(waiting)
    finally:
        clients.discard(queue)


async def events(request: Request) -> EventSourceResponse:
    return EventSourceResponse(frames(), sep="\n")


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    connection = await AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
    await connection.execute(f"LISTEN {POSTGRES_CHANNEL}")
    task = asyncio.create_task(listen(connection))
    yield
    task.cancel()
    await connection.close()


app = Starlette(routes=[Route("/events", events), Route("/hello", hello)], lifespan=lifespan)
