"""Answers that hold for equal questions: for which, how long, and how much memory callers can have taken for them."""

import tracemalloc

from proxy.contract.plan import Edit, Op
from proxy.control.authorizing.kept_answers import MAX_ANSWERS, MAX_BYTES, KeptAnswers
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import Allowed, Denied

ASKED = Question(Party("a"), Party("b"), "GET", "/a?b=c", "shop", "HTTP/2", (("x", "1"), ("y", "2")), 3)
OTHERS = (
    ASKED._replace(caller=Party("c")),
    ASKED._replace(caller=Party("a", address="192.0.2.1")),
    ASKED._replace(method="PUT"),
    ASKED._replace(target="/a?b=c&d"),
    ASKED._replace(host="cart"),
    ASKED._replace(protocol="HTTP/1.1"),
    ASKED._replace(headers=(("y", "2"), ("x", "1"))),
    ASKED._replace(headers=(("x", "1y2"),)),
    ASKED._replace(headers=(("x", "1"), ("y", ""), ("", "2"))),
    ASKED._replace(length=None),
)


def kept(now: list[float], for_s: float = 60.0) -> KeptAnswers:
    return KeptAnswers(for_s, lambda: now[0])


def test_an_answer_holds_for_an_equal_question_alone_and_for_its_time() -> None:
    now = [0.0]
    one = kept(now)
    one.keep(ASKED, Denied())
    assert one.find(ASKED._replace(headers=tuple(ASKED.headers))) == Denied()
    assert [one.find(other) for other in OTHERS] == [None] * len(OTHERS)
    now[0] = 61.0
    assert one.find(ASKED) is None


def test_nothing_is_kept_where_no_time_is_said() -> None:
    one = kept([0.0], 0.0)
    one.keep(ASKED, Denied())
    assert (one.find(ASKED), len(one)) == (None, 0)


def test_answers_are_bounded_in_number_and_the_one_unused_for_longest_goes() -> None:
    one = kept([0.0])
    one.keep(ASKED, Allowed())
    for number in range(MAX_ANSWERS):
        assert one.find(ASKED) is not None
        one.keep(ASKED._replace(target=f"/{number}"), Allowed())
    assert (len(one), one.find(ASKED._replace(target="/0"))) == (MAX_ANSWERS, None)


def test_long_questions_and_answers_take_no_more_than_the_bound() -> None:
    one = kept([0.0])
    tracemalloc.start()
    try:
        for number in range(1_000):
            asked = ASKED._replace(headers=(("x", f"{number}" + "a" * 60_000),))
            edit = Edit(op=Op.SET, name=b"x-user", data=b"%d" % number + b"a" * 10_000)
            one.keep(asked, Denied(body=b"%d" % number + b"a" * 60_000) if number % 2 else Allowed((edit,)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert MAX_BYTES / 2 < held < MAX_BYTES * 1.25
    assert one.find(ASKED._replace(headers=(("x", "999" + "a" * 60_000),))) is not None
