"""What a peer may do at the callee's proxy."""

import pytest
from msgspec.structs import replace

from proxy.contract.plan import Cause, Op, Plan, Reply
from tests.unit.proxy.heads import asking, head, inbound

PEER = {
    "listener": "peer",
    "peer": "spiffe://public/ns/shop/cart",
    "headers": ((b"postern-callee", b"web.shop"),),
}


def test_peer_of_the_own_namespace_reaches_the_app() -> None:
    plan = inbound().decide(asking(head("/x", **PEER)))
    assert isinstance(plan, Plan)
    assert plan.routes[0].cluster == "app"
    sets = {edit.name: edit.data for edit in plan.routes[0].edits if edit.op is Op.SET}
    assert any(edit.op is Op.CALLER for edit in plan.routes[0].edits)
    assert b"dapr-caller-app-id" not in sets  # whose call it is differs from call to call
    assert plan.labels.src == "cart"


def test_identity_comes_from_the_certificate_never_from_a_header() -> None:
    forged = PEER | {"headers": (*PEER["headers"], (b"dapr-caller-app-id", b"admin"))}
    plan = inbound().decide(asking(head("/x", **forged)))
    assert isinstance(plan, Plan)
    assert any(e.op is Op.REMOVE_PREFIX and e.name == b"dapr-caller-" for e in plan.routes[0].edits)
    assert plan.labels.src == "cart"


@pytest.mark.parametrize("path", ["//a", "/a/../b", "/a%2Fb", "/a%FF", "/100%25ab", "/a;b", "/a\\b"])
def test_path_that_rfc_3986_allows_is_carried_as_it_came(path: str) -> None:
    plan = inbound().decide(asking(head(path, **PEER)))
    assert isinstance(plan, Plan)
    assert all(edit.op is not Op.DAPR_PATH for edit in plan.routes[0].edits)


@pytest.mark.parametrize(
    ("changes", "app", "cause"),
    [
        ({"headers": ((b"postern-callee", b"other.shop"),)}, {}, Cause.MISDIRECTED),
        ({"headers": ((b"dapr-callee-app-id", b"other"),), "protocol": "grpc"}, {}, Cause.MISDIRECTED),
        ({"protocol": "grpc", "path": "/a.B/C"}, {}, Cause.UNSUPPORTED),
        (
            {"protocol": "grpc", "path": "/dapr.proto.internals.v1.Other/CallLocal"},
            {"protocol": "grpc"},
            Cause.UNSUPPORTED,
        ),
        (
            {"protocol": "grpc", "path": "/dapr.Proto.runtime.v1.AppCallback/OnInvoke"},
            {"protocol": "grpc"},
            Cause.UNSUPPORTED,
        ),
        (
            {
                "protocol": "http2",
                "method": "POST",
                "path": "/x/..//dapr%2Eproto.Runtime.v1.AppCallback/OnInvoke",
            },
            {"protocol": "grpc"},
            Cause.UNSUPPORTED,
        ),
        ({"protocol": "grpc", "path": "/a/b/c"}, {"protocol": "grpc"}, Cause.UNSUPPORTED),
        ({"protocol": "grpc", "path": "/a.B/C/"}, {"protocol": "grpc"}, Cause.UNSUPPORTED),
        ({"method": "CONNECT"}, {}, Cause.BAD_REQUEST),
        ({"peer": None, "headers": ()}, {}, Cause.BAD_REQUEST),
        ({"peer": None, "headers": (), "protocol": "websocket"}, {}, Cause.BAD_REQUEST),
        ({}, {"has_port": False}, Cause.APP_DOWN),
        ({}, {"healthy": False}, Cause.APP_UNHEALTHY),
        ({"protocol": "websocket"}, {"protocol": "h2c"}, Cause.UNSUPPORTED),
        ({"peer": "spiffe://public/ns/other/x"}, {}, Cause.DENIED),
    ],
)
def test_refused(changes: dict[str, object], app: dict[str, object], cause: Cause) -> None:
    reply = inbound(**app).decide(asking(head("/x", **PEER | changes)))
    assert isinstance(reply, Reply), reply
    assert reply.cause is cause


def test_envelope_of_a_daprd_goes_to_the_translator_with_who_sent_it() -> None:
    path = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
    plan = inbound().decide(asking(head(path, **PEER | {"protocol": "grpc", "headers": ()})))
    assert isinstance(plan, Plan)
    (route,) = plan.routes
    assert (route.cluster, plan.labels.dst) == ("daprd-in", "")
    assert {edit.name: edit.data for edit in route.edits if edit.op is Op.SET} == {
        b"postern-trust-domain": b"public"
    }
    removed = {edit.name for edit in route.edits if edit.op is Op.REMOVE_PREFIX}
    assert removed == {b"dapr-caller-", b"postern-"}
    assert any(edit.op is Op.CALLER for edit in route.edits)


def test_translated_call_is_judged_as_that_of_the_certificate() -> None:
    def decided(peer: bytes, **changes: object) -> Plan | Reply:
        fields = ((b"postern-peer", peer), (b"dapr-caller-app-id", b"admin"))
        found = inbound().decide_translated(
            asking(head("/x", listener="daprd-in", headers=fields, **changes))
        )
        assert isinstance(found, Plan | Reply)
        return found

    plan = decided(b"spiffe://public/ns/shop/cart")
    assert isinstance(plan, Plan)
    assert (plan.labels.src, plan.labels.peer_id) == ("cart", "spiffe://public/ns/shop/cart")
    assert (plan.labels.dst, plan.labels.surface) == ("web", "dapr")
    sets = {edit.name: edit.data for edit in plan.routes[0].edits if edit.op is Op.SET}
    assert (sets[b"dapr-caller-app-id"], sets[b"dapr-caller-namespace"]) == (b"cart", b"shop")
    stranger = decided(b"spiffe://public/ns/other/cart")
    assert isinstance(stranger, Reply)
    assert (stranger.cause, stranger.status) == (Cause.DENIED, 403)
    long = decided(b"spiffe://%b/ns/shop/cart" % (b"x" * 250))
    assert isinstance(long, Reply)
    assert long.cause is Cause.UNSUPPORTED


def test_only_the_translators_socket_says_who_calls() -> None:
    fields = (*PEER["headers"], (b"postern-peer", b"spiffe://public/ns/shop/admin"))
    plan = inbound().decide(asking(head("/x", **PEER | {"headers": fields})))
    assert isinstance(plan, Plan)
    assert plan.labels.peer_id == "spiffe://public/ns/shop/cart"


def web(path: str = "/a.B/C", **changes: object) -> dict[str, object]:
    """A call of gRPC-Web."""
    kind = (b"content-type", b"application/grpc-web+proto")
    return PEER | {"method": "POST", "path": path, "headers": (*PEER["headers"], kind)} | changes


@pytest.mark.parametrize(
    ("asked", "protocol", "translated"),
    [
        (web(), "grpc", True),
        (web(), "grpcs", True),
        (web(), "http", False),
        (web(), "h2c", False),
        (web(method="GET"), "grpc", False),
        (web(headers=PEER["headers"]), "grpc", False),
    ],
)
def test_grpc_web_is_translated_for_apps_that_speak_grpc_alone(
    asked: dict[str, object], protocol: str, translated: bool
) -> None:
    plan = inbound(protocol=protocol).decide(asking(head("/x", **asked)))
    assert isinstance(plan, Plan)
    assert any(edit.op is Op.GRPC_WEB for edit in plan.routes[0].edits) is translated
    assert plan.labels.is_grpc_web is translated


@pytest.mark.parametrize(
    "asked",
    [web("/a/b/c"), web("/a.B/../C"), web("/dapr.proto.internals.v1.ServiceInvocation/CallLocal")],
)
def test_grpc_web_is_judged_as_the_grpc_call_that_it_is(asked: dict[str, object]) -> None:
    reply = inbound(protocol="grpc").decide(asking(head("/x", **asked)))
    assert isinstance(reply, Reply)
    assert reply.cause is Cause.UNSUPPORTED


def test_without_mtls_a_caller_may_have_found_us_under_another_namespace() -> None:
    decider = inbound()
    decider.view = replace(decider.view, mtls=False)
    for callee, is_right in ((b"web.default", True), (b"webs.shop", False)):
        found = decider.decide(asking(head("/x", **PEER | {"headers": ((b"postern-callee", callee),)})))
        assert (found.cause if isinstance(found, Reply) else None) == (
            None if is_right else Cause.MISDIRECTED
        )


def test_denial_speaks_the_surface_of_the_caller() -> None:
    stranger = PEER | {"peer": "spiffe://public/ns/other/x"}
    own = inbound().decide(asking(head("/x", **stranger)))
    dapr = inbound().decide(asking(head("/x", **stranger | {"headers": ((b"postern-surface", b"dapr"),)})))
    assert isinstance(own, Reply)
    assert isinstance(dapr, Reply)
    assert own.status == dapr.status == 403
    assert b"ERR_DENIED" in own.body
    assert b"ERR_DIRECT_INVOKE" in dapr.body
    assert b"spiffe://public/ns/other/x" in dapr.body
