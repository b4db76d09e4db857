"""Probe: a reader of a topic that no publisher of the schedule knows: all that it receives is somebody's doing."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Sequence
from time import monotonic
from types import TracebackType

from pgfanout import REFRESH_EVENT, Event

from .cause import Cause
from .record import Topic
from .world import World

__all__ = ["Probe"]

_END = "probed"
_PATIENCE = 20.0
_HUB = "large"


class Probe:
    """A subscription while the block runs. What it was told by then is to be judged unless its hub has had a new
    session, or another fault told a gap: then nobody can say whose doing it was."""

    def __init__(self, world: World) -> None:
        self.topic = Topic("probe", str(uuid.uuid4()))
        self._world = world
        self._hub = world.hubs[_HUB]

    def __enter__(self) -> Probe:
        self._began = monotonic()
        self._marks = self._world.session_marks()
        self._subscription = self._hub.subscribe(self.topic.channel, self.topic.tenant)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.close()

    def refreshes(self, own: Sequence[Cause] = ()) -> int | None:
        """How often it was told to refresh so far, or None where nobody can say why. A strange event breaks a promise
        of the world; so does silence."""
        received = self._received()
        if not received or received[-1].type != _END:
            self._world.broken.append(f"lost: a probe's event did not arrive within {_PATIENCE:g} s")
        if _HUB in self._world.renewed(self._marks) or self._others(own):
            return None
        strange = [event for event in received if event is not REFRESH_EVENT and event.type != _END]
        if strange and self._world.history:
            self._world.broken.append(f"strange: {strange[0].payload[:80]!r} arrived, which is in no log")
        return sum(event is REFRESH_EVENT for event in received)

    def _received(self) -> list[Event]:
        """Everything up to an event that is published now, again and again since a full queue may cost it."""
        received: list[Event] = []
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline and not (received and received[-1].type == _END):
            with self._world.connect() as connection:
                self._hub.publish(*self.topic, "end", type=_END, executor=connection)
            try:
                received += self._subscription.get_all(1.0)
            except queue.Empty:
                pass
        return received

    def _others(self, own: Sequence[Cause]) -> bool:
        causes = [cause for cause in self._world.causes if cause not in own and cause.until >= self._began]
        return any(cause.topics is None and (cause.paths is None or _HUB in cause.paths) for cause in causes)
