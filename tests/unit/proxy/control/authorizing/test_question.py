"""What an authorizer is told of a call: whose it is by its certificate, and the head as the app will get it."""

from typing import Any

import pytest
from msgspec.structs import replace

from policies.rules.authorizers import ExternalAuthorizer
from proxy.contract.plan import Edit, Edits, Labels, Op, Plan, Route
from proxy.control.authorizing.question import Party, question
from tests.unit.proxy.heads import head

OWN = Party("spiffe://public/ns/default/shop", app_id="shop", namespace="default")
JUDGE = ExternalAuthorizer(name="judge", kind="grpc", target="localhost:1")
INBOUND = Labels(
    direction="inbound",
    src="web",
    src_namespace="far",
    dst="shop",
    dst_namespace="default",
    peer_id="spiffe://public/ns/far/web",
)


def plan(*edits: Edit, labels: Labels = INBOUND) -> Plan:
    return Plan(labels=labels, routes=(Route(cluster="app", edits=edits),), authorizers=("judge",))


def told(
    made: Plan, target: str = "/a", name: str = "judge", spec: ExternalAuthorizer = JUDGE, **changes: Any
) -> Any:
    return question(made, head(target, **changes), spec, name, OWN)


def test_caller_is_whom_its_certificate_proves() -> None:
    asked = told(plan(), peer="spiffe://public/ns/far/web", peer_address="192.0.2.1")
    assert asked.caller == Party("spiffe://public/ns/far/web", "web.far", "web", "far", "192.0.2.1")
    assert (asked.callee.spiffe_id, asked.callee.name) == (OWN.spiffe_id, "shop.default")


def test_caller_of_a_call_that_goes_out_is_our_app() -> None:
    labels = Labels(
        direction="outbound", src="shop", dst="cart", dst_namespace="far", peer_id="spiffe://x/ns/far/cart"
    )
    asked = told(plan(labels=labels))
    assert (asked.caller.spiffe_id, asked.callee.spiffe_id) == (OWN.spiffe_id, "spiffe://x/ns/far/cart")
    assert asked.callee.name == "cart.far"


@pytest.mark.parametrize(
    ("edits", "name", "expected"),
    [
        ((), "judge", "/v1.0/invoke/shop/method/a//b?x=1"),
        ((Edit(op=Op.DAPR_PATH, data=b"method"),), "judge", "/a/b?x=1"),
        ((Edit(op=Op.PATH, data=b"/moved"),), "judge", "/moved?x=1"),
        ((Edit(op=Op.DAPR_PATH, data=b"method"),), "http:0:m", "/v1.0/invoke/shop/method/a/b?x=1"),
        ((Edit(op=Op.PATH, data=b"/moved"),), "http:0:m", "/moved?x=1"),
        ((Edit(op=Op.DAPR_PATH, data=b"method"),), "app:0:m", "/a/b?x=1"),
    ],
)
def test_target_is_the_one_that_the_app_will_get(edits: Edits, name: str, expected: str) -> None:
    assert told(plan(*edits), "/v1.0/invoke/shop/method/a//b?x=1", name).target == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1.0/invoke/shop/method/x/../admin",
        "/v1.0/invoke/shop/method//admin",
        "//v1.0/invoke/shop/method/admin",
    ],
)
def test_no_spelling_of_our_own_apps_request_is_told_that_is_not_sent(path: str) -> None:
    made = plan(Edit(op=Op.DAPR_PATH, data=b"method"))
    assert told(made, path, "http:0:m").target == "/v1.0/invoke/shop/method/admin"


def test_what_ends_at_this_hop_is_not_told() -> None:
    sent = ((b"connection", b"close, X-Role"), (b"x-role", b"admin"), (b"x_role", b"admin"), (b"x-a", b"1"))
    assert told(plan(), headers=sent).headers == (("x-a", "1"),)


def test_what_callers_write_of_themselves_and_secrets_of_ours_are_not_told() -> None:
    headers = (
        (b"x-a", b"1"),
        *((name, b"evil") for name in (b"dapr-caller-app-id", b"dapr_caller_namespace", b"postern-claims")),
        *(
            (name, b"s")
            for name in (b"dapr-api-token", b"x-forwarded-client-cert", b"connection", b"te", b"host")
        ),
        (b"authorization", b"Bearer t"),
    )
    assert told(plan(), headers=headers).headers == (("x-a", "1"), ("authorization", "Bearer t"))
    few = replace(JUDGE, headers=frozenset({"x-a", "dapr-caller-app-id"}))
    assert told(plan(), headers=headers, spec=few).headers == (("x-a", "1"),)
