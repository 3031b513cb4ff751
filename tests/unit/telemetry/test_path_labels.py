"""Paths to labels."""

import pytest

from telemetry.errors import MetricError
from telemetry.path_labels import PathLabels

PATTERNS = (
    "/orders/{id}",
    "/orders/latest",
    "/orders/{id}/items/{item}",
    "/files/{rest...}",
    "/static/",
    "/{$}",
)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/orders/17", "/orders/{id}"),
        ("/orders/latest", "/orders/latest"),
        ("/orders/17/items/3", "/orders/{id}/items/{item}"),
        ("/orders/", ""),
        ("/orders/17/", ""),
        ("/orders", ""),
        ("/files/a/b/c", "/files/{rest...}"),
        ("/files/", "/files/{rest...}"),
        ("/static/x/y", "/static/"),
        ("/static", ""),
        ("/", "/{$}"),
        ("/other", ""),
        ("/healthz", "/healthz"),
        ("/dapr/config", "/dapr/config"),
        ("/orders/a\nb", "/orders/{id}"),
    ],
)
def test_label_is_the_most_specific_pattern(path: str, label: str) -> None:
    assert PathLabels(PATTERNS)(path) == label
    assert PathLabels(reversed(PATTERNS))(path) == label


def test_label_unmatched_path_is_itself_only_when_asked_for() -> None:
    assert PathLabels(PATTERNS, raw=True)("/other") == "/other"
    assert PathLabels()("/other") == ""


@pytest.mark.parametrize("bad", ["orders", "", "/a//b", "/a/{rest...}/b", "/a/x{id}", "/a/{}", "/{$}/a"])
def test_pattern_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(MetricError, match="path pattern"):
        PathLabels([bad])


def test_pattern_of_daprs_path_form_is_for_the_path_that_the_app_sends() -> None:
    mine, any_of = "/v1.0/invoke/cart/method/orders/7", "/v1.0/invoke/cart/method/orders/{id}"
    labels = PathLabels([any_of, mine, "/items/{id}"])
    below = "/v1.0/invoke/cart/method"
    assert labels("/orders/7", below) == mine
    assert labels("/orders/8", below) == any_of
    assert labels("/orders/8", "/v1.0/invoke/pay/method") == ""
    assert labels("/orders/8") == ""  # by the header, or at the callee
    assert labels("/items/8", below) == "/v1.0/invoke/{app_id}/method/items/{id}"


def test_route_is_a_pattern_or_nothing() -> None:
    labels = PathLabels([*PATTERNS, "/v1.0/invoke/cart/method/items"], raw=True)
    assert [labels.route(path) for path in ("/orders/7", "/other", "/healthz", "/items")] == [
        "/orders/{id}",
        "",
        "",
        "",
    ]
    assert labels.route("/items", "/v1.0/invoke/cart/method") == "/v1.0/invoke/cart/method/items"
