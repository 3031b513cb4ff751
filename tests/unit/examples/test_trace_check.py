"""A checkout's trace, whole and damaged, as the demonstration judges it."""

from collections.abc import Iterator
from typing import Any

import pytest

from examples.boutique.trace_check import CHECKOUT_CALLS, check_checkout

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

Row = dict[str, Any]


def whole_trace() -> list[Row]:
    """Spans as they must be: a call and its serving for each pair, each call under its caller's serving."""
    numbers = iter(f"{number:016x}" for number in range(1, 100))
    served: dict[str, str] = {}
    return [span for pair, times in CHECKOUT_CALLS.items() for span in calls(pair, times, numbers, served)]


def calls(pair: tuple[str, str], times: int, numbers: Iterator[str], served: dict[str, str]) -> Iterator[Row]:
    caller, callee = pair
    for _ in range(times):
        call, serving = next(numbers), next(numbers)
        yield row("CLIENT", caller, call, served.get(caller))
        yield row("SERVER", callee, serving, call)
        served.setdefault(callee, serving)


def row(kind: str, service: str, span_id: str, parent_id: str | None) -> Row:
    return {
        "traceId": TRACE_ID,
        "id": span_id,
        "parentId": parent_id,
        "kind": kind,
        "name": "/shop.service/method",
        "localEndpoint": {"serviceName": service},
    }


def failed(rows: object, trace_id: str = TRACE_ID) -> list[str]:
    return [check.title for check in check_checkout({"spans": rows}, trace_id) if not check.passed]


def serving(rows: list[Row], service: str) -> Row:
    return next(r for r in rows if r["kind"] == "SERVER" and r["localEndpoint"]["serviceName"] == service)


def test_whole_trace_passes_every_check() -> None:
    assert failed(whole_trace()) == []


def test_root_may_leave_its_parent_out() -> None:
    rows = whole_trace()
    del rows[0]["parentId"]
    assert failed(rows) == []


@pytest.mark.parametrize("service", ["cart", "catalog", "payment", "reviews", "checkout"])
def test_missing_service_is_named(service: str) -> None:
    rows = whole_trace()
    rows.remove(serving(rows, service))
    assert any(f"called {service}" in title for title in failed(rows))


def test_call_under_the_wrong_parent_is_found() -> None:
    rows = whole_trace()
    serving(rows, "payment")["parentId"] = serving(rows, "cart")["id"]
    assert failed(rows) == ["checkout called payment, under its own call"]


def test_call_cut_off_from_its_request_is_found() -> None:
    rows = whole_trace()
    payment = serving(rows, "payment")
    call = next(r for r in rows if r["id"] == payment["parentId"])
    call["parentId"] = None
    assert failed(rows) == [
        "it begins with one call, made by frontend",
        "checkout called payment, under its own call",
    ]


def test_span_with_a_lost_parent_is_found() -> None:
    rows = [*whole_trace(), row("SERVER", "cart", "f" * 16, "e" * 16)]
    assert failed(rows) == ["every span's parent is in it"]


def test_call_made_too_often_is_found() -> None:
    rows = whole_trace()
    payment = serving(rows, "payment")
    rows.append(payment | {"id": "f" * 16})
    assert failed(rows) == ["checkout called payment, under its own call"]


def test_another_trace_is_not_the_one_on_the_receipt() -> None:
    assert failed(whole_trace(), "f" * 32) == ["the last trace is the one on the receipt"]


def test_receipt_without_a_trace_fails() -> None:
    assert "the last trace is the one on the receipt" in failed(whole_trace(), "")


@pytest.mark.parametrize("rows", [[], None, {}, "text", [1], [{}], [{"id": 1, "localEndpoint": "x"}]])
def test_rows_that_are_no_spans_fail_and_do_not_raise(rows: object) -> None:
    assert "it begins with one call, made by frontend" in failed(rows)


@pytest.mark.parametrize("document", [None, [], "text", 1, {}])
def test_document_without_spans_fails_every_check(document: object) -> None:
    assert not any(check.passed for check in check_checkout(document, TRACE_ID))
