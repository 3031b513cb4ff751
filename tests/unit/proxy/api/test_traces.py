"""The list of traces in memory, as the admin socket gives it."""

import pytest

from proxy.api.traces import MAX_LIMIT, listing, spans_of
from telemetry.context import SpanContext
from telemetry.tracing import Tracer
from tests.unit.telemetry.building import BEGAN, a_span


def tracer(count: int = 3) -> Tracer:
    """So many traces of one span each, a millisecond apart; the first failed."""
    made = Tracer("cart")
    for n in range(count):
        made.record(
            a_span(
                context=SpanContext(n + 1, 0xA1, 0, True),
                start_ns=BEGAN + n * 1_000_000,
                end_ns=BEGAN + (n + 1) * 1_000_000,
                error=None if n else "Code(500)",
            )
        )
    return made


async def test_traces_are_listed_newest_first_and_no_more_than_asked_for() -> None:
    told = await listing(tracer(), {"limit": ["2"]})
    assert [int(one["trace_id"], 16) for one in told["traces"]] == [3, 2]
    assert told["more"] == 1


async def test_traces_are_chosen_by_id_and_by_how_they_ended() -> None:
    chosen = await listing(tracer(), {"id": ["1,3"]})
    assert {int(one["trace_id"], 16) for one in chosen["traces"]} == {1, 3}
    failed = await listing(tracer(), {"error": ["1"]})
    assert [int(one["trace_id"], 16) for one in failed["traces"]] == [1]
    assert not (await listing(tracer(), {"since": ["1s"]}))["traces"]


async def test_spans_of_one_trace_in_several_pieces_are_one_summary() -> None:
    made = Tracer("cart")
    for n in range(600):
        made.record(a_span(context=SpanContext(7, n + 1, 0, True)))
    (one,) = (await listing(made, {}))["traces"]
    assert one["spans"] == 600


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"limit": [str(MAX_LIMIT + 1)]}, "limit"),
        ({"limit": ["x"]}, "limit"),
        ({"since": ["yesterday"]}, "since"),
        ({"slower-than": ["-1s"]}, "slower-than"),
        ({"id": ["xyz"]}, "invalid trace id"),
        ({"colour": ["red"]}, "colour: no such filter"),
    ],
)
async def test_query_that_can_not_be_read_is_told(query: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await listing(tracer(), query)


async def test_spans_of_an_unknown_trace_are_none() -> None:
    assert (await spans_of(tracer(), "ff"))["spans"] == []
