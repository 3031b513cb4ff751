"""What handlers do with requests: what goes on as what, what is answered, and what a decision may be kept for."""

import json

import pytest
from msgspec.structs import replace

from policies.rules.pipelines import (
    Bearer,
    ClientCredentials,
    Middleware,
    OAuth2,
    RateLimit,
    RouterAlias,
    RouterChecker,
    Uppercase,
)
from policies.rules.tokens import KeySource
from proxy.contract.gates import RateGate
from proxy.contract.head import Form, Headers
from proxy.contract.plan import Cause, Decision, Edit, Hold, Labels, Op, Plan, Reply, Route
from proxy.contract.recording import Facet, RecordingHead, Tables
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.bearer import read_keys
from proxy.deciding.callee import HTTP_PIPELINE
from proxy.deciding.login import Logins, set_cookie
from proxy.deciding.pipeline import Passed, Pipeline, path_edit
from proxy.deciding.remote import KeysState, LoginState, NothingFetched, Remote, TokenState
from tests.support.issuer import Issuer
from tests.unit.proxy.heads import head

LABELS = Labels(direction="outbound")
SLOW = RateLimit(name="slow", per_s=0.3)
ALIAS = RouterAlias(name="alias", routes=(("/a", "/b"), ("/i/{id}", "/j")))


def asking(pipeline: Pipeline, target: str, headers: Headers = ()) -> RecordingHead:
    tables = Tables()
    for number, table in pipeline.tables().items():
        tables.put_paths(number, table)
    path, _, query = target.partition("?")
    return RecordingHead(head(path, query=query.encode(), headers=headers), tables)


def take(
    target: str,
    *handlers: Middleware,
    form: Form = "sent",
    remote: Remote = NothingFetched(),  # noqa: B008 - it has no state
    headers: Headers = (),
) -> tuple[Passed | Decision, RecordingHead]:
    pipeline = Pipeline("http", HTTP_PIPELINE, handlers, remote)
    asked = asking(pipeline, target, headers)
    return pipeline.take(asked, form, LABELS), asked


def passed(target: str, *handlers: Middleware, form: Form = "sent") -> tuple[Passed, RecordingHead]:
    found, asked = take(target, *handlers, form=form)
    assert isinstance(found, Passed)
    return found, asked


def plan() -> Plan:
    replies = CauseReplies(LABELS, "own", "cart", "cart", end="peer")
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


@pytest.mark.parametrize("direction", [(True, False), (False, True)])
def test_bodies_in_upper_case_are_a_property_of_the_plan(direction: tuple[bool, bool]) -> None:
    request, response = direction
    found, asked = passed("/a", Uppercase(name="up", request=request, response=response))
    made = found.onto(plan())
    assert isinstance(made, Plan)
    assert ((made.upper_request, made.upper_response), asked.vary) == (direction, ())
    other = Uppercase(name="other", request=response, response=request)
    both = passed("/a", Uppercase(name="up", request=request, response=response), other)[0].onto(made)
    assert isinstance(both, Plan)
    assert both.upper_request
    assert both.upper_response


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


# --- what was fetched from other servers

ISSUER = Issuer("https://login.example", None)
GUARD = Bearer(name="guard", issuer=ISSUER.url, audience="shop")
OURS = ClientCredentials(
    name="ours", client_id="a", client_secret="b", scopes=(), token_url="https://t/", header="x-token"
)
KEYS = read_keys(json.dumps({"keys": ISSUER.keys}).encode())


class Fetched(NothingFetched):
    """What a test says was fetched."""

    def __init__(self, keys: KeysState = KeysState(), token: TokenState = TokenState()) -> None:  # noqa: B008
        self._keys, self._token = keys, token

    def keys(self, source: KeySource) -> KeysState:
        return self._keys

    def token(self, middleware: ClientCredentials) -> TokenState:
        return self._token


def guarded(keys: KeysState, token: str | None) -> tuple[Passed | Decision, RecordingHead]:
    headers = () if token is None else ((b"authorization", f"Bearer {token}".encode()),)
    return take("/a", GUARD, remote=Fetched(keys), headers=headers)


def test_token_that_counts_lets_one_request_pass() -> None:
    found, asked = guarded(KeysState(KEYS), ISSUER.token())
    assert isinstance(found, Passed)
    assert not asked.may_keep


@pytest.mark.parametrize(
    ("token", "why"),
    [(None, b""), ("x", b'error="invalid_token"'), (ISSUER.token(aud="y", exp=None), b"error=")],
)
def test_without_such_a_token_the_answer_is_401(token: str | None, why: bytes) -> None:
    found, _ = guarded(KeysState(KEYS), token)
    assert isinstance(found, Reply)
    asked_for = dict(found.headers)[b"www-authenticate"]
    assert (found.status, found.cause) == (401, Cause.UNAUTHENTICATED)
    assert asked_for.startswith(b'Bearer realm="guard"')
    assert why in asked_for


def test_keys_on_their_way_are_waited_for_and_ones_that_can_not_be_had_are_told() -> None:
    held, _ = guarded(KeysState(), ISSUER.token())
    assert isinstance(held, Hold)
    assert (held.key, held.then.status) == (GUARD.remote_key, 500)
    found, _ = guarded(KeysState(error="gone"), ISSUER.token())
    assert isinstance(found, Reply)
    assert (found.status, found.body.endswith(b"gone")) == (500, True)


def test_unknown_key_waits_for_newer_keys_where_they_may_be_asked_for() -> None:
    held, _ = guarded(KeysState(KEYS, may_renew=True), ISSUER.token(kid="rsa-next"))
    assert isinstance(held, Hold)
    assert held.then.status == 401
    found, _ = guarded(KeysState(KEYS), ISSUER.token(kid="rsa-next"))
    assert isinstance(found, Reply)
    assert found.status == 401


def test_our_token_is_an_edit_that_dies_with_it() -> None:
    found, asked = take("/a", OURS, remote=Fetched(token=TokenState(b"Bearer t")))
    assert isinstance(found, Passed)
    made = found.onto(plan())
    assert isinstance(made, Plan)
    assert made.routes[0].edits == (Edit(op=Op.SET, name=b"x-token", data=b"Bearer t"),)
    assert (made.scopes, asked.vary) == (("token:ours",), ())
    assert Pipeline("http", 4, (OURS,)).secret_headers == {b"x-token"}


def test_missing_token_is_waited_for_or_told() -> None:
    held, _ = take("/a", OURS)
    assert isinstance(held, Hold)
    assert (held.key, held.then.status) == ("token:ours", 503)
    found, asked = take("/a", OURS, remote=Fetched(token=TokenState(None, "no")))
    assert isinstance(found, Reply)
    assert (found.status, found.scopes, asked.may_keep) == (503, ("token:ours",), True)
    assert found.body == b"ours has no token from https://t/: no"


@pytest.mark.parametrize(
    ("path", "is_for"),
    [("/in/x", True), ("/out", False), ("/%69n", True), ("/out/..//in", True), ("/100%25ab", True)],
)
def test_filter_is_for_every_path_that_may_be_read_as_one_of_its_own(path: str, is_for: bool) -> None:
    pytest.importorskip("re2")
    one = replace(OURS, path_filter="^/in")
    found, asked = take(path, one, remote=Fetched(token=TokenState(b"Bearer t")))
    assert isinstance(found, Passed)
    assert (bool(found.edits), asked.may_keep) == (is_for, True)


LOGIN = OAuth2(
    name="login",
    client_id="a",
    client_secret="b",
    scopes=(),
    auth_url="https://p/auth",
    token_url="https://p/token",
    redirect_url="http://localhost/back",
    header="x-login",
)


class LoggedIn(NothingFetched):
    """One session, and what came of every code."""

    def __init__(self, outcome: LoginState = LoginState()) -> None:  # noqa: B008
        self._outcome = outcome

    def session(self, middleware: OAuth2, session: str) -> bytes | None:
        return b"Bearer t" if session == "mine" else None

    def login(self, middleware: OAuth2, code: str) -> LoginState:
        return self._outcome


def cookie(what: str, value: str) -> Headers:
    return ((b"cookie", set_cookie(LOGIN, what, value, 1)[1].partition(b";")[0]),)


def test_session_gives_the_request_its_token_and_no_other_value_does() -> None:
    found, asked = take("/a", LOGIN, remote=LoggedIn(), headers=cookie("session", "mine"))
    assert isinstance(found, Passed)
    assert (found.is_login, asked.may_keep) == (True, False)
    assert found.edits == (Edit(op=Op.SET, name=b"x-login", data=b"Bearer t"),)
    for headers in ((), cookie("session", "other"), cookie("login", "mine")):
        answer, _ = take("/a", LOGIN, remote=LoggedIn(), headers=headers)
        assert isinstance(answer, Reply)
        assert (answer.status, answer.body) == (302, b"")


@pytest.mark.parametrize(
    ("outcome", "status"), [(LoginState(), 0), (LoginState(error="no"), 500), (LoginState("new", 60), 302)]
)
def test_code_waits_for_its_session_and_then_goes_to_the_page(outcome: LoginState, status: int) -> None:
    remote = LoggedIn(outcome)
    remote.logins = Logins(b"k", lambda: "nonce", lambda: 0.0)
    begun, _ = take("/page", LOGIN, remote=remote)
    assert isinstance(begun, Reply)
    sealed = dict(begun.headers)[b"set-cookie"].partition(b";")[0]
    found, _ = take("/back?state=nonce&code=c", LOGIN, remote=remote, headers=((b"cookie", sealed),))
    if isinstance(found, Hold):
        assert (found.key, found.then.status, status) == ("login:login\nc", 500, 0)
        return
    assert isinstance(found, Reply)
    assert found.status == status
    if status == 302:
        cookies = [data for name, data in found.headers if name == b"set-cookie"]
        assert dict(found.headers)[b"location"] == b"/page"
        assert [b"=new; " in cookies[0], b"Max-Age=0" in cookies[1]] == [True, True]


def test_answer_of_a_handler_stands_behind_the_gates_of_those_further_out() -> None:
    for handlers, gates in (((SLOW, LOGIN), ("http:0:slow",)), ((LOGIN, SLOW), ())):
        found, _ = take("/a", *handlers, remote=LoggedIn())
        assert isinstance(found, Reply)
        assert (found.status, found.gates) == (302, gates)
        if gates:
            assert dict(found.local_replies[Cause.RATE].headers)[b"retry-after"] == b"4"
