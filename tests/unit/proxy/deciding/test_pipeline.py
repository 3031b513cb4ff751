"""What handlers do with requests: what goes on as what, what is answered, and what a decision may be kept for."""

import pytest

from policies.rules.pipelines import Middleware, RateLimit, RouterAlias, RouterChecker
from proxy.contract.gates import RateGate
from proxy.contract.head import Form
from proxy.contract.plan import Cause, Decision, Edit, Labels, Op, Plan, Reply, Route
from proxy.contract.recording import Facet, RecordingHead, Tables
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.callee import HTTP_PIPELINE
from proxy.deciding.pipeline import Passed, Pipeline, path_edit
from tests.unit.proxy.heads import head

LABELS = Labels(direction="outbound")
SLOW = RateLimit(name="slow", per_s=0.3)
ALIAS = RouterAlias(name="alias", routes=(("/a", "/b"), ("/i/{id}", "/j")))


def asking(pipeline: Pipeline, target: str) -> RecordingHead:
    tables = Tables()
    for number, table in pipeline.tables().items():
        tables.put_paths(number, table)
    path, _, query = target.partition("?")
    return RecordingHead(head(path, query=query.encode()), tables)


def take(target: str, *handlers: Middleware, form: Form = "sent") -> tuple[Passed | Decision, RecordingHead]:
    pipeline = Pipeline("http", HTTP_PIPELINE, handlers)
    asked = asking(pipeline, target)
    return pipeline.take(asked, form, LABELS), asked


def passed(target: str, *handlers: Middleware, form: Form = "sent") -> tuple[Passed, RecordingHead]:
    found, asked = take(target, *handlers, form=form)
    assert isinstance(found, Passed)
    return found, asked


def plan() -> Plan:
    replies = CauseReplies(LABELS, "own", "cart", "cart", at_app=False)
    return Plan(labels=LABELS, routes=(Route(cluster="c"),), gates=("own",), local_replies=replies)


def test_nothing_is_asked_where_there_are_no_handlers() -> None:
    found, asked = passed("/a")
    assert (found, asked.vary) == (Passed(asked), ())
    assert Pipeline("http", HTTP_PIPELINE).tables() == {}


def test_rate_limit_is_a_gate_before_those_of_the_plan() -> None:
    found, asked = passed("/a", SLOW)
    made = found.onto(plan())
    assert isinstance(made, Plan)
    assert (made.gates, asked.vary) == (("http:0:slow", "own"), ())
    assert dict(made.local_replies[Cause.RATE].headers)[b"retry-after"] == b"4"
    assert Pipeline("http", 4, (SLOW,)).gates == {"http:0:slow": RateGate(per_s=0.3, burst=1)}


def test_alias_moves_a_request_and_reads_its_path_class_alone() -> None:
    found, asked = passed("/a?q=1", ALIAS)
    assert found.head.moved_to == ("/b", "")
    assert ([read.facet for read in asked.vary], asked.may_keep) == ([Facet.PATH], True)
    assert path_edit(found.head, "sent") == (Edit(op=Op.PATH, data=b"/b"),)
    other, _ = passed("/c", ALIAS)
    assert (other.head.moved_to, path_edit(other.head, "sent")) == (None, ())


def test_alias_with_holes_is_for_one_request() -> None:
    found, asked = passed("/i/7?q=1", ALIAS)
    assert (found.head.moved_to, found.head.whole().query) == (("/j", "id=7"), b"id=7&q=1")
    assert not asked.may_keep
    assert path_edit(found.head, "sent") == (Edit(op=Op.PATH, data=b"/j?id=7"),)


def test_aliases_follow_each_other() -> None:
    second = RouterAlias(name="second", routes=(("/b", "/c"), ("/j", "/k")))
    assert passed("/a", ALIAS, second)[0].head.moved_to == ("/c", "")
    assert passed("/i/7", ALIAS, second)[0].head.moved_to == ("/k", "id=7")
    assert passed("/a", second, ALIAS)[0].head.moved_to == ("/b", "")


def test_alias_is_for_the_path_that_the_app_finds() -> None:
    assert passed("/v1.0/invoke/x/method/a", ALIAS, form="method")[0].head.moved_to == ("/b", "")
    assert passed("/v1.0/invoke/x/method/a", ALIAS)[0].head.moved_to is None


def test_path_of_dapr_s_form_is_cut_where_it_was_moved_to() -> None:
    into = RouterAlias(name="in", routes=(("/a", "/v1.0/invoke/x/method/b"),))
    found, _ = passed("/a", into)
    assert path_edit(found.head, "method") == (Edit(op=Op.PATH, data=b"/b"),)


@pytest.mark.parametrize(
    ("rule", "target", "is_allowed"),
    [
        ("^/[a-z/]+$", "/a/b", True),
        ("^/[a-z/]+$", "/a/b?x", False),
        ("^/[a-z/]+$", "/A", False),
        ("b", "/abc", True),
        (r"\?x=[0-9]+$", "/a?x=12", True),
    ],
)
def test_rule_is_found_in_path_and_query(rule: str, target: str, is_allowed: bool) -> None:
    pytest.importorskip("re2")
    found, asked = take(target, RouterChecker(name="rule", rule=rule))
    assert isinstance(found, Passed) is is_allowed
    assert not asked.may_keep
    if isinstance(found, Reply):
        assert (found.cause, found.status) == (Cause.BAD_REQUEST, 400)
        assert found.body.startswith(b"invalid router")


def test_rule_behind_an_alias_sees_what_the_alias_made() -> None:
    pytest.importorskip("re2")
    rule = RouterChecker(name="rule", rule=r"^/j\?id=7&q=1$")
    assert isinstance(take("/i/7?q=1", ALIAS, rule)[0], Passed)
    assert isinstance(take("/i/7?q=1", rule, ALIAS)[0], Reply)


def test_rule_takes_time_in_proportion_to_the_text() -> None:
    pytest.importorskip("re2")
    rule = RouterChecker(name="rule", rule="^/(a|aa)+$")
    assert isinstance(take("/" + "a" * 60_000 + "b", rule)[0], Reply)
