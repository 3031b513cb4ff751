"""What our own app is given: who calls, the token, gates; and what can't be carried to it."""

from typing import Any

import pytest
from msgspec.structs import replace

from policies.rules.caller import Caller
from policies.rules.pipelines import RateLimit
from proxy.contract.plan import DETAIL, Cause, Edit, Hold, Labels, Op, Plan, Reply, Surface
from proxy.deciding.app_plan import (
    APP_CLUSTER,
    APP_GATE,
    CALLBACK,
    NO_VERB,
    STRIP,
    AppView,
    denied,
    to_app,
    to_callback,
    unsupported,
    without_verb,
)
from proxy.deciding.callee import APP_PIPELINE
from proxy.deciding.pipeline import Pipeline
from tests.unit.proxy.heads import APP, asking, head

LABELS = Labels(direction="inbound", dst="web")
CART = Caller(trust_domain="public", namespace="shop", app_id="cart")


def deliver(
    *,
    caller: Caller | None = CART,
    app: AppView = APP,
    rewrite: tuple[Edit, ...] = (),
    surface: Surface = "own",
    **changes: Any,
) -> Plan | Reply | Hold:
    return to_app(
        asking(head("/x", **changes)), app, caller=caller, labels=LABELS, surface=surface, rewrite=rewrite
    )


def plan(**changes: Any) -> Plan:
    found = deliver(**changes)
    assert isinstance(found, Plan), found
    return found


def written(found: Plan) -> dict[bytes, bytes]:
    """What the Plan sets."""
    return {edit.name: edit.data for edit in found.routes[0].edits if edit.op is Op.SET}


def test_app_is_told_who_calls_and_whom() -> None:
    assert written(plan()) == {
        b"dapr-caller-app-id": b"cart",
        b"dapr-caller-namespace": b"shop",
        b"dapr-callee-app-id": b"web",
    }


def test_app_that_is_not_told_who_calls_is_shown_no_forgery_either() -> None:
    found = to_app(
        asking(head("/x")), APP, caller=CART, labels=LABELS, surface="dapr", rewrite=(), is_told=False
    )
    assert isinstance(found, Plan)
    assert written(found) == {}
    assert set(STRIP) <= set(found.routes[0].edits)


def test_caller_without_identity_is_named_by_nothing() -> None:
    assert set(written(plan(caller=None))) == {b"dapr-callee-app-id"}


def test_app_is_told_what_is_said_of_a_caller_that_nobody_proves_where_daprds_tell_it() -> None:
    app = replace(APP, is_caller_claimed=True)
    edits = plan(caller=None, app=app).routes[0].edits
    assert not [edit for edit in edits if edit.op is Op.CALLER or edit.name == b"dapr-caller-"]
    assert {b"postern-", b"dapr-api-token"} <= {edit.name for edit in edits}
    assert written(plan(app=app))[b"dapr-caller-app-id"] == b"cart"


def test_identity_headers_are_dropped_before_any_is_written() -> None:
    edits = plan(app=replace(APP, token=b"t")).routes[0].edits
    first_set = next(n for n, edit in enumerate(edits) if edit.op is Op.SET)
    last_removal = max(n for n, edit in enumerate(edits) if edit.op in (Op.REMOVE, Op.REMOVE_PREFIX))
    assert last_removal < first_set
    gone = {edit.name for edit in edits if edit.op in (Op.REMOVE, Op.REMOVE_PREFIX)}
    assert {b"dapr-caller-", b"postern-", b"dapr-api-token", b"x-forwarded-client-cert"} <= gone


@pytest.mark.parametrize("token", [b"secret", b""])
def test_app_token_replaces_the_callers(token: bytes) -> None:
    found = plan(app=replace(APP, token=token), headers=((b"dapr-api-token", b"callers"),))
    assert written(found)[b"dapr-api-token"] == token
    assert b"dapr-api-token" not in written(plan())


def test_plan_leads_to_the_app_under_its_own_authority() -> None:
    route = plan().routes[0]
    assert (route.cluster, route.expect) == (APP_CLUSTER, frozenset())
    assert Edit(op=Op.AUTHORITY, data=b"127.0.0.1:8080") in route.edits


def test_rewrite_of_the_target_is_kept() -> None:
    rewrite = (Edit(op=Op.DAPR_PATH, data=b"method"),)
    assert rewrite[0] in plan(rewrite=rewrite).routes[0].edits
    assert all(edit.op is not Op.DAPR_PATH for edit in plan().routes[0].edits)


def test_answer_of_the_app_can_say_nothing_in_our_name() -> None:
    assert Edit(op=Op.REMOVE_PREFIX, name=b"postern-") in plan().reply_edits


@pytest.mark.parametrize(
    ("gated", "protocol", "gates"),
    [
        (True, "http1", (APP_GATE,)),
        (True, "websocket", (APP_GATE,)),
        (True, "grpc", ()),
        (False, "http1", ()),
    ],
)
def test_concurrency_gate_stands_before_http_calls(
    gated: bool, protocol: str, gates: tuple[str, ...]
) -> None:
    app = replace(APP, gated=gated, protocol="grpc" if protocol == "grpc" else "http")
    assert plan(app=app, protocol=protocol).gates == gates


@pytest.mark.parametrize(
    ("changes", "retried"),
    [
        ({}, {Cause.REFUSED, Cause.RESET_EARLY}),
        ({"method": "DELETE"}, {Cause.REFUSED, Cause.RESET_EARLY}),
        ({"method": "POST"}, {Cause.REFUSED}),
        ({"method": "PUT", "framing": "length"}, {Cause.REFUSED}),
        ({"method": "PUT", "framing": "stream"}, {Cause.REFUSED}),
    ],
)
def test_app_is_asked_twice_only_where_it_can_not_have_acted(
    changes: dict[str, Any], retried: set[Cause]
) -> None:
    rules = plan(**changes).retries
    assert set().union(*(rule.on for rule in rules)) == retried
    attempts = {cause: rule.attempts for rule in rules for cause in rule.on}
    assert attempts == {cause: 4 if cause is Cause.REFUSED else 2 for cause in retried}
    for rule in rules:
        assert rule.attempts is not None
        assert (rule.http_codes, rule.grpc_codes) == (frozenset(), frozenset())
        assert list(rule.delays_s()) == [0.0] * (rule.attempts - 1)  # type: ignore[call-overload]


def test_grpc_call_is_repeated_only_when_refused() -> None:
    (rule,) = plan(protocol="grpc", method="POST", app=replace(APP, protocol="grpc")).retries
    assert rule.on == {Cause.REFUSED}


# --- what can't be carried


@pytest.mark.parametrize(
    ("app", "protocol", "cause"),
    [
        ({"has_port": False}, "http1", Cause.APP_DOWN),
        ({"has_port": False, "healthy": False}, "grpc", Cause.APP_DOWN),
        ({"healthy": False}, "http1", Cause.APP_UNHEALTHY),
        ({"healthy": False, "protocol": "grpc"}, "grpc", Cause.APP_UNHEALTHY),
        ({"protocol": "http"}, "grpc", Cause.UNSUPPORTED),
        ({"protocol": "https"}, "grpc", Cause.UNSUPPORTED),
        ({"protocol": "h2c"}, "websocket", Cause.UNSUPPORTED),
        ({"protocol": "grpc"}, "websocket", Cause.UNSUPPORTED),
        ({"protocol": "grpcs"}, "websocket", Cause.UNSUPPORTED),
        ({"healthy": None}, "http1", None),
        ({"healthy": True}, "http1", None),
        ({"protocol": "https"}, "websocket", None),
        ({"protocol": "h2c"}, "grpc", None),
        ({"protocol": "h2c"}, "http2", None),
        ({"protocol": "grpc"}, "grpc", None),
        ({"protocol": "grpc"}, "http2", None),
    ],
)
def test_what_can_not_be_carried(app: dict[str, Any], protocol: str, cause: Cause | None) -> None:
    found = unsupported(replace(APP, **app), asking(head("/x", protocol=protocol)), "own")
    assert (found[0] if found else None) is cause
    if found:
        assert "web.shop" in found[1]


def test_unhealthy_app_is_told_in_daprs_words() -> None:
    found = unsupported(replace(APP, healthy=False), asking(head("/x")), "own")
    assert found is not None
    assert "app is not in a healthy state" in found[1]


def test_what_can_not_be_carried_is_answered_on_the_callers_surface() -> None:
    found = deliver(app=replace(APP, has_port=False), surface="dapr")
    assert isinstance(found, Reply)
    assert (found.cause, found.status) == (Cause.APP_DOWN, 500)
    assert b"failed to invoke, id: web" in found.body
    assert b"--app-port" in found.body


# --- denials

PEER = "spiffe://public/ns/shop/cart"


def deny(surface: Surface, peer: str = PEER, **changes: Any) -> Reply:
    labels = replace(LABELS, decision="policy=cart rule=/secret-rule reason=rule")
    return denied(asking(head("/x", **changes)), APP, labels=labels, surface=surface, peer=peer)


@pytest.mark.parametrize("surface", ["own", "dapr"])
def test_denial_tells_caller_and_operation_but_no_rule(surface: Surface) -> None:
    found = deny(surface)
    assert (found.cause, found.status, found.grpc_code) == (Cause.DENIED, 403, 7)
    for text in (found.body.decode(), found.grpc_message):
        assert PEER in text
        assert DETAIL in text
        assert "verb: GET" in text
        assert "secret-rule" not in text
        assert "policy=" not in text


@pytest.mark.parametrize(("protocol", "is_hidden"), [("http1", True), ("grpc", False)])
def test_denial_tells_no_path_of_http_where_paths_are_hidden(protocol: str, is_hidden: bool) -> None:
    asked = asking(head("/a.B/C", protocol=protocol))
    found = denied(asked, replace(APP, hides_paths=True), labels=LABELS, surface="own", peer=PEER)
    for text in (found.body.decode(), found.grpc_message):
        assert ("operation: (hidden)" in text, DETAIL in text) == (is_hidden, not is_hidden)


def test_denial_without_a_policy_tells_so_and_the_way_out() -> None:
    found = denied(
        asking(head("/x")), APP, labels=LABELS, surface="dapr", peer=PEER, posture="production"
    ).grpc_message
    assert "has no access policy" in found
    assert "reason=no-policy, profile production" in found
    assert "--config" in found
    assert "--profile dev" in found


def test_denial_is_labelled_with_the_whole_decision_for_our_own_log() -> None:
    assert deny("own").labels.decision == "policy=cart rule=/secret-rule reason=rule"


def test_denial_reads_as_an_rpc_error_on_daprs_surface_only() -> None:
    assert b"rpc error: code = PermissionDenied desc = access" in deny("dapr").body
    assert b"rpc error" not in deny("own").body
    assert "rpc error" not in deny("dapr").grpc_message


def test_denial_of_grpc_has_no_verb_and_of_nobody_says_anonymous() -> None:
    found = deny("own", peer="", protocol="grpc", method="POST")
    assert "anonymous" in found.grpc_message
    assert "verb" not in found.grpc_message


# --- apps that speak gRPC


@pytest.mark.parametrize(
    ("app_protocol", "protocol", "is_http_only"),
    [("grpc", "http1", True), ("grpcs", "http2", True), ("grpc", "grpc", False), ("h2c", "http1", False)],
)
def test_http_call_to_a_grpc_app_takes_no_answer_in_grpc(
    app_protocol: str, protocol: str, is_http_only: bool
) -> None:
    found = plan(app=replace(APP, protocol=app_protocol), protocol=protocol)
    assert any(edit.op is Op.HTTP_ONLY for edit in found.routes[0].edits) is is_http_only


GRPC_APP = replace(APP, protocol="grpc", has_callback=True)


def test_http_call_by_daprs_api_to_a_grpc_app_goes_where_on_invoke_is_called() -> None:
    found = plan(app=replace(GRPC_APP, gated=True), surface="dapr")
    assert found.routes[0].cluster == CALLBACK
    assert found.gates == (APP_GATE,)
    assert found.retries == ()
    assert not any(edit.op is Op.HTTP_ONLY for edit in found.routes[0].edits)
    assert not any(
        edit.op is Op.REMOVE_PREFIX for edit in found.reply_edits
    )  # it tells the app's status there


def test_first_call_waits_for_the_server_that_calls_on_invoke() -> None:
    held = deliver(app=replace(GRPC_APP, has_callback=False), surface="dapr")
    assert isinstance(held, Hold)
    assert (held.key, held.then.cause) == (CALLBACK, Cause.NOT_READY)


@pytest.mark.parametrize(
    ("app", "surface", "protocol"),
    [(GRPC_APP, "own", "http1"), (GRPC_APP, "dapr", "grpc"), (APP, "dapr", "http1")],
)
def test_any_other_call_goes_to_the_app_itself(app: AppView, surface: Surface, protocol: str) -> None:
    assert plan(app=app, surface=surface, protocol=protocol).routes[0].cluster == APP_CLUSTER


def test_on_invoke_goes_to_the_app_within_the_deadline() -> None:
    found = to_callback(GRPC_APP)
    assert found.routes[0].cluster == APP_CLUSTER
    assert {Op.AUTHORITY, Op.DEADLINE} <= {edit.op for edit in found.routes[0].edits}
    assert found.labels.dst == ""  # the call that it is made for counts
    assert "--app-protocol" in found.local_replies[Cause.RESET_EARLY].grpc_message


def test_call_without_a_verb_is_none_for_an_app_that_speaks_http() -> None:
    asked = asking(head("/x", method=NO_VERB))
    refused = without_verb(asked, APP, LABELS, "dapr")
    assert refused is not None
    assert (refused.cause, "http_extension.verb" in refused.grpc_message) == (Cause.UNSUPPORTED, True)
    assert without_verb(asked, GRPC_APP, LABELS, "dapr") is None
    assert without_verb(asked, APP, LABELS, "own") is None
    assert plan(app=GRPC_APP, surface="dapr", method=NO_VERB).routes[0].cluster == CALLBACK


@pytest.mark.parametrize(
    ("app_protocol", "protocol", "gates"),
    [
        ("http", "http1", ("app:0:l",)),
        ("h2c", "grpc", ("app:0:l",)),
        ("grpc", "grpc", ()),
        ("grpc", "http1", ()),
    ],
)
def test_pipeline_is_for_all_that_an_http_app_is_sent(
    app_protocol: str, protocol: str, gates: tuple[str, ...]
) -> None:
    limited = Pipeline("app", APP_PIPELINE, (RateLimit(name="l", per_s=1.0),))
    assert plan(app=replace(APP, protocol=app_protocol, pipeline=limited), protocol=protocol).gates == gates
