"""Faults that the rule of readers once had, or could have, put back one at a time: the model has to find each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pgfanout.delivery import backlog, feed, reader, replay, tail

from .model import Readers

pytestmark = pytest.mark.slow

SETTINGS = settings(
    max_examples=3_000,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # that it fails is enough
)

FAULTS = [
    # What docs/development/fault-harness.md lists for the two copies of the rule that there were.
    (reader, "an answer from before a refresh is taken for that to the next", "question is not self.asked", "False"),
    (
        reader,
        "a reader that has joined its tail has a question for ever",
        "self.position, self.behind, self.asked, self.fruitless = position, False, None, 0",
        "self.position, self.behind, self.fruitless = position, False, 0",
    ),
    (
        reader,
        "a page of before a gap is handed out behind its refresh",
        "        if tail.gap > self.position:\n            return []",
        "        if False:\n            return []",
    ),
    (
        reader,
        "a reader that is behind is not told a gap",
        "tail.gap > self.position:\n            events",
        "False:\n            events",
    ),
    (
        reader,
        "the cursor of a reader is the number that was offered, whatever it has not read",
        "if not self.behind and self.position == tail.end_position:",
        "if not self.behind:",
    ),
    (
        feed,
        "a feed has everything after what was offered when it began, not after what had begun",
        "            if self.floor < 0:\n                self.floor = begun",
        "            if self.floor < 0:\n                self.floor = self.offered",
    ),
    (
        backlog,
        "a queue has everything after what was offered when it began, not after what had begun",
        "self._tail.floor = max(self._tail.floor, begun)",
        "self._tail.floor = max(self._tail.floor, offered)",
    ),
    # Others.
    (
        reader,
        "a reader joins a tail that lacks what comes next",
        "<= tail.floor <= self.number <=",
        "<= self.number <=",
    ),
    (reader, "a reader joins with a number that nobody vouches for", "if not self.known and not", "if False and not"),
    (
        reader,
        "of a page that does not fit the rest is left out",
        "page.until if count == len(page.events) else",
        "page.until if True else",
    ),
    (reader, "what comes from the log is taken for too long ago", "self.fruitless >= _PATIENCE", "self.fruitless >= 0"),
    (reader, "a reader that is too slow is not told", "            events.append(REFRESH_EVENT)\n\n", "\n"),
    (reader, "the number of a lost log is kept behind its refresh", "self.number = max(0, tail.floor)\n", "pass\n"),
    (
        reader,
        "after a gap the highest number counts",
        "self._go_on_after(tail.number_before(until))",
        "self.number = max(self.number, tail.number_before(until) or 0)",
    ),
    (
        tail,
        "what is dropped is not known to be gone",
        "            self.floor = number\n",
        "            pass\n",
    ),
    (
        tail,
        "a gap is joined one event too late",
        "return self.end_position - back",
        "return self.end_position - back + 1",
    ),
    (tail, "a gap is joined one event too early", "0 < number_of(event) <= number:", "0 < number_of(event) < number:"),
    (
        tail,
        "what was skipped counts for nothing",
        "        self.first_position += 1  # in the place",
        "        pass  # in the place",
    ),
    (tail, "what was skipped is taken to be here", "        self.floor = until\n", ""),
    (replay, "a page is ahead of what was offered", "until = min(self.until, last)", "until = self.until"),
    (
        backlog,
        "the cursor of an idle queue is a number that no event has",
        "self._note_idle(self._log.offered)",
        "self._note_idle(number_of(event) - 1)",
    ),
]


@contextmanager
def put_back(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """The module's classes with a changed line, as long as it lasts."""
    path = Path(str(module.__file__))
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{path.name} has {source.count(old)} times {old!r}"
    changed = compile(source.replace(old, new), str(path), "exec")
    namespace = {"__name__": module.__name__, "__package__": module.__package__}
    exec(changed, namespace)
    kept = []
    for name, kind in list(vars(module).items()):
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            for attribute, value in list(vars(kind).items()):
                if isinstance(value, FunctionType):
                    other = vars(namespace[name])[attribute]
                    kept.append((value, value.__code__))
                    value.__code__ = other.__code__
    try:
        yield
    finally:
        for function, code in kept:
            function.__code__ = code


class OfFeeds(Readers):
    kinds = ("feed",)


class OfQueues(Readers):
    kinds = ("queue",)


@pytest.mark.parametrize(("module", "what", "old", "new"), FAULTS, ids=[what for _, what, *_ in FAULTS])
def test_the_model_finds(module: ModuleType, what: str, old: str, new: str) -> None:
    with put_back(module, old, new), pytest.raises(AssertionError):
        run_state_machine_as_test(OfQueues if module is backlog else OfFeeds, settings=SETTINGS)


@pytest.mark.parametrize("machine", [OfFeeds, OfQueues])
def test_without_a_fault_it_finds_nothing(machine: type[Readers]) -> None:
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=300))
