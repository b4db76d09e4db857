"""Questions: whose turn it is."""

from __future__ import annotations

from pgfanout.delivery.log import Page
from pgfanout.delivery.questions import Question, Questions
from pgfanout.topic import Topic


def nobody(page: Page | None) -> None:
    raise AssertionError("nothing is answered here")


def ask(questions: Questions, tenant: str, after: int, channel: str = "orders", **options: object) -> Question:
    question = Question((Topic(channel, tenant),), after, nobody, **options)  # type: ignore[arg-type]
    questions.add(question)
    return question


def taken(questions: Questions) -> list[tuple[str, str, int, int]]:
    """Tenant, channel, number, and how many asked it, in the order in which they are taken."""
    found = []
    while group := questions.take():
        [topic] = group[0].topics
        found.append((topic.tenant, topic.channel, group[0].after, len(group)))
    return found


def test_tenants_take_turns_and_within_one_its_topics_do() -> None:
    questions = Questions()
    for after in (1, 2, 3):
        ask(questions, "a", after)
    ask(questions, "a", 1, "stock")
    ask(questions, "b", 1)
    assert len(questions) == 5
    assert taken(questions) == [
        ("a", "orders", 1, 1),
        ("b", "orders", 1, 1),
        ("a", "stock", 1, 1),
        ("a", "orders", 2, 1),
        ("a", "orders", 3, 1),
    ]
    assert len(questions) == 0


def test_topics_of_several_tenants_have_one_turn_whatever_their_number() -> None:
    questions = Questions()
    for after in range(3):
        for tenants in ("ab", "bc", "acd"):
            topics = tuple(Topic("orders", tenant) for tenant in tenants)
            questions.add(Question(topics, after, nobody))
        ask(questions, "a", after)
        ask(questions, "b", after)
    order = []
    while group := questions.take():
        order.append("".join(topic.tenant for topic in group[0].topics))
    assert order[:9] == ["ab", "a", "b", "bc", "a", "b", "acd", "a", "b"]
    assert order[9:] == ["ab", "bc", "acd"] * 2


def test_those_who_ask_the_same_are_answered_together() -> None:
    questions = Questions()
    for after, known in ((1, False), (2, False), (1, False), (1, True)):
        ask(questions, "a", after, known=known)
    assert taken(questions) == [("a", "orders", 1, 2), ("a", "orders", 2, 1), ("a", "orders", 1, 1)]


def test_what_is_not_wanted_is_not_taken() -> None:
    questions = Questions()
    for after in range(10):
        ask(questions, str(after), after, wanted=lambda after=after: after == 7)
    ask(questions, "failed", 1, tries=1, wanted=lambda: False)
    assert taken(questions) == [("7", "orders", 7, 1)]
    assert len(questions) == 0


def test_what_has_failed_comes_last() -> None:
    questions = Questions()
    ask(questions, "a", 1, tries=1)
    ask(questions, "b", 1)
    ask(questions, "a", 2)
    assert [tenant for tenant, *_ in taken(questions)] == ["b", "a", "a"]


def test_what_is_not_wanted_does_not_add_up() -> None:
    questions = Questions()
    wanted = [ask(questions, str(number), number) for number in range(100)]
    for after in range(5000):
        ask(questions, str(after % 7), after, wanted=lambda: False, tries=after % 2)
        assert len(questions) <= 2 * len(wanted)
    assert len(taken(questions)) == 100
