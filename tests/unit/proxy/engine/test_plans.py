"""Kept decisions: found by what was read, dropped by scope, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.contract.engine import MAX_REPLY_BYTES
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Decision, Hold
from proxy.contract.recording import RecordingHead, Tables
from proxy.engine.portable import plans
from proxy.engine.portable.plans import Kept, PlanCache
from tests.conformance.harness import plan, reply


def head(**changes: object) -> RequestHead:
    """A head."""
    made = RequestHead("in", "http1", "none", "GET", "a", b"/", "/", b"", ())
    return replace(made, **changes)


def scoped(*scopes: str) -> Decision:
    """A Plan of scopes."""
    return plan(scopes=scopes)


def by_method(head: RecordingHead) -> Decision:
    """Reads the method, and the authority for GET alone."""
    if head.method() == "GET":
        head.authority()
        return scoped("get")
    return scoped("other")


def test_find_equal_in_what_was_read_is_the_same_decision() -> None:
    cache = PlanCache(Tables())
    kept = cache.decide(by_method, head())
    assert cache.find(head(target=b"/else", path="/else")) is kept
    assert cache.find(head(authority="b")) is None
    assert cache.find(head(method="POST")) is None


def test_find_what_was_not_read_does_not_matter() -> None:
    cache = PlanCache(Tables())
    kept = cache.decide(by_method, head(method="POST"))
    assert cache.find(head(method="POST", authority="elsewhere")) is kept


def test_find_listeners_are_apart() -> None:
    cache = PlanCache(Tables())
    cache.decide(lambda _: scoped(), head())
    assert cache.find(head(listener="peer")) is None
    assert cache.find(head(method="POST")) is not None


def test_decide_hold_is_never_kept() -> None:
    cache = PlanCache(Tables())
    hold = Hold(key="app", for_s=1.0, then=reply(Cause.NO_APP))
    assert cache.decide(lambda _: hold, head()) is hold
    assert (cache.find(head()), cache.size) == (None, 0)


def test_decide_reply_is_kept_like_a_plan() -> None:
    cache = PlanCache(Tables())
    kept = cache.decide(lambda _: reply(Cause.DENIED), head())
    assert cache.find(head()) is kept


def test_invalidate_drops_the_scope_alone() -> None:
    cache = PlanCache(Tables())
    cache.decide(by_method, head())
    kept = cache.decide(by_method, head(method="POST"))
    cache.invalidate("get")
    cache.invalidate("get")
    cache.invalidate("never seen")
    assert cache.find(head()) is None
    assert cache.find(head(method="POST")) is kept
    assert cache.size == 1


def test_invalidate_plan_of_two_scopes_dies_once() -> None:
    cache = PlanCache(Tables())
    cache.decide(lambda _: scoped("a", "b"), head())
    cache.invalidate("a")
    cache.invalidate("b")
    assert cache.size == 0


def test_decide_after_an_invalidation_may_ask_something_else() -> None:
    cache = PlanCache(Tables())
    cache.decide(by_method, head())
    cache.invalidate("get")

    def by_authority(head: RecordingHead) -> Decision:
        head.authority()
        return scoped("new")

    kept = cache.decide(by_authority, head())
    assert cache.find(head(method="POST")) is kept


def test_edges_of_a_question_no_longer_asked_are_never_walked_again() -> None:
    """A header set's answer must not pass for another's once a decider asked nothing in between."""
    tables = Tables()
    tables.put_set(1, frozenset({b"yes"}))
    cache = PlanCache(tables)

    def by_token(head: RecordingHead) -> Decision:
        head.header_is(b"one", 1)
        return scoped("kept")

    def by_other(head: RecordingHead) -> Decision:
        head.header_is(b"two", 1)
        return scoped("new")

    cache.decide(by_token, head(headers=((b"one", b"yes"),)))
    cache.decide(lambda _: scoped("brief"), head())
    cache.invalidate("brief")
    cache.decide(by_other, head())
    assert cache.find(head(headers=((b"two", b"yes"),))) is None


def test_cache_is_bounded_also_when_scopes_are_invalidated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_PLAN_BYTES", 9 * 17_000)
    cache = PlanCache(Tables())
    most = 0
    for number in range(100):
        cache.decide(by_method, head(authority=str(number)))
        if number % 7 == 0:
            cache.invalidate("get")
        most = max(most, cache.size)
    assert most <= 10
    assert sum(cache.find(head(authority=str(number))) is not None for number in range(100)) <= 10


def test_ready_made_answers_are_bounded_in_bytes_and_push_out_no_plan() -> None:
    cache = PlanCache(Tables())

    def decide(head: RecordingHead) -> Decision:
        return plan() if head.authority() == "friend" else reply(Cause.DENIED, body=b"x" * 60_000)

    cache.decide(decide, head(authority="friend"))
    most = 0
    for number in range(1_000):
        cache.decide(decide, head(authority=str(number)))
        most = max(most, cache.size)
    assert most <= 2 + MAX_REPLY_BYTES // 120_000
    assert cache.find(head(authority="friend")) is not None
    assert cache.find(head(authority="0")) is None
    assert cache.find(head(authority="999")) is not None


HEADS = st.builds(
    head,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    authority=st.sampled_from(["a", "b"]),
    protocol=st.sampled_from(["http1", "grpc"]),
)


@given(st.lists(HEADS, max_size=30))
def test_find_never_gives_what_the_decider_would_not(heads: list[RequestHead]) -> None:
    def decide(head: RecordingHead) -> Decision:
        if head.method() == "POST":
            return plan("posts")
        return plan(head.authority() if head.protocol() == "grpc" else "rest")

    cache = PlanCache(Tables())
    for one in heads:
        found = cache.find(one) or cache.decide(decide, one)
        fresh = PlanCache(Tables()).decide(decide, one)
        assert isinstance(found, Kept)
        assert isinstance(fresh, Kept)
        assert found.decision == fresh.decision
