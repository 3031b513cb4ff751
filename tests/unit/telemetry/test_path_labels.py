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
