"""A trace as rows."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telemetry.dashboard.waterfall import MAX_ROWS, waterfall


def span(
    name: str, parent: str = "", *, at: int = 0, took: int = 10, kind: str = "CLIENT", **more: Any
) -> dict[str, Any]:
    local = {"serviceName": name.partition("-")[0]}
    return {
        "id": name,
        "parentId": parent,
        "name": name,
        "timestamp": 1_000 + at,
        "duration": took,
        "kind": kind,
        "localEndpoint": local,
        **more,
    }


def test_children_stand_below_their_parent_in_order_of_time() -> None:
    rows = waterfall([span("c", "a", at=5), span("b", "a", at=2), span("a", took=30), span("d", "b", at=3)])[
        "rows"
    ]
    assert [(row["id"], row["depth"], row["at_us"]) for row in rows] == [
        ("a", 0, 0),
        ("b", 1, 2),
        ("d", 2, 3),
        ("c", 1, 5),
    ]


def test_whole_length_services_and_errors_are_told() -> None:
    told = waterfall([span("web"), span("cart", "web", at=5, took=20, tags={"error": "no app"})])
    assert (told["began_us"], told["took_us"], told["errors"]) == (1_000, 25, 1)
    assert told["services"] == ["web", "cart"]
    assert told["rows"][1]["error"] == "no app"


def test_span_whose_parent_was_not_seen_stands_at_the_top() -> None:
    (row,) = waterfall([span("a", "gone")])["rows"]
    assert (row["depth"], row["orphan"]) == (0, True)


def test_span_told_twice_is_one_row_and_both_ends_of_a_call_are_two() -> None:
    rows = waterfall([span("a"), span("a"), span("a", kind="SERVER")])["rows"]
    assert [row["kind"] for row in rows] == ["client", "server"]


def test_events_stand_where_they_happened() -> None:
    (row,) = waterfall([span("a", annotations=[{"timestamp": 1_004, "value": "retry"}, "odd"])])["rows"]
    assert row["events"] == [{"at_us": 4, "text": "retry"}]


def test_nothing_is_told_as_nothing() -> None:
    assert waterfall([])["rows"] == []


def test_longer_trace_than_anybody_reads_is_cut_and_says_so() -> None:
    told = waterfall(span(f"s{number}") for number in range(MAX_ROWS + 3))
    assert (len(told["rows"]), told["left_out"]) == (MAX_ROWS, 3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_every_span_is_shown_once_even_in_a_circle_of_parents(links: list[tuple[int, int]]) -> None:
    spans = {number: span(str(number), str(parent)) for number, parent in links}
    rows = waterfall(spans.values())["rows"]
    assert sorted(row["id"] for row in rows) == sorted(map(str, spans))
