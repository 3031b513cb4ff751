"""Answers for what goes wrong on the way of a call."""

import json

import pytest

from proxy.contract.plan import DETAIL, Cause, Labels, Surface
from proxy.deciding.app_answers import CauseReplies, End

LABELS = Labels(direction="inbound", dst="web")


@pytest.mark.parametrize("end", ["app", "peer", "external"])
@pytest.mark.parametrize("surface", ["own", "dapr"])
def test_every_cause_has_an_answer_that_names_the_callee(surface: Surface, end: End) -> None:
    made = CauseReplies(LABELS, surface, "cart.shop", "cart", end=end)
    assert set(made) == set(Cause)
    for cause, found in made.items():
        if surface == "dapr" and cause in (Cause.BREAKER, Cause.PROBING):
            continue  # in daprd's words alone
        assert "cart.shop" in found.grpc_message
        assert DETAIL in found.grpc_message
        assert "{" not in found.grpc_message


def test_breakers_refuse_in_daprds_words_on_its_surface_alone() -> None:
    made = CauseReplies(LABELS, "dapr", "cart.shop", "cart", end="peer")
    for cause, text in ((Cause.BREAKER, "circuit breaker is open"), (Cause.PROBING, "too many requests")):
        found = made[cause]
        assert (found.status, found.grpc_code, found.grpc_message) == (500, 2, text)
        told = json.loads(found.body, strict=False)  # the trace id is put in by the engine
        assert (told["errorCode"], told["message"]) == (
            "ERR_DIRECT_INVOKE",
            f"failed to invoke, id: cart, err: {text}",
        )
        assert (b"postern-error", cause.value.encode()) in found.headers


def test_app_that_does_not_listen_is_down_not_the_mesh() -> None:
    at_app = CauseReplies(LABELS, "own", "cart.shop", "cart", end="app")
    at_peer = CauseReplies(LABELS, "own", "cart.shop", "cart", end="peer")
    assert (at_app[Cause.CONNECT].cause, at_peer[Cause.CONNECT].cause) == (Cause.APP_DOWN, Cause.CONNECT)
    assert "--app-port" in at_app[Cause.CONNECT].grpc_message
    assert "peer port" in at_peer[Cause.CONNECT].grpc_message


def test_http_call_that_a_grpc_app_breaks_off_says_what_each_side_speaks() -> None:
    hinted = CauseReplies(LABELS, "own", "cart.shop", "cart", end="app", hint="; the app speaks gRPC")
    for made in (hinted, hinted.adding(((b"a", b"b"),))):
        assert "speaks gRPC" in made[Cause.RESET_EARLY].grpc_message
        assert "speaks gRPC" in made[Cause.UNSUPPORTED].grpc_message
        assert "speaks gRPC" not in made[Cause.TIMEOUT].grpc_message


def test_limit_without_a_pipeline_answers_as_other_causes_do() -> None:
    found = CauseReplies(LABELS, "own", "cart.shop", "cart", end="app")[Cause.RATE]
    assert json.loads(found.body, strict=False)["errorCode"] == "ERR_RATE_LIMITED"
    assert found.status == 429


@pytest.mark.parametrize("surface", ["own", "dapr"])
def test_rate_limit_answers_in_plain_text_and_says_how_long_to_wait(surface: Surface) -> None:
    found = CauseReplies(LABELS, surface, "cart.shop", "cart", end="app").limiting(4)[Cause.RATE]
    headers = dict(found.headers)
    assert (found.status, headers[b"retry-after"]) == (429, b"4")
    assert headers[b"content-type"].startswith(b"text/plain")
    assert sum(name == b"retry-after" for name, _ in found.headers) == 1
    assert found.body.decode() == found.grpc_message
