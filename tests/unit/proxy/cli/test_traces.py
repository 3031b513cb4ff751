"""Traces of several sidecars put together."""

from proxy.cli.traces import merge


def span(trace: str, number: str, start: object, kind: str = "CLIENT") -> dict[str, object]:
    return {"traceId": trace, "id": number, "timestamp": start, "kind": kind}


def test_merged_spans_are_each_there_once_and_in_order() -> None:
    shared = span("a", "2", 20, "SERVER")
    told: list[list[object]] = [[shared, span("a", "2", 10)], [shared, span("a", "1", 5), "odd"]]
    assert [(one["id"], one["kind"]) for one in merge(told)] == [
        ("1", "CLIENT"),
        ("2", "CLIENT"),
        ("2", "SERVER"),
    ]
