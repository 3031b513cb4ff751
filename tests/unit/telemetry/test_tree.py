"""Spans as a tree for the terminal."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telemetry.tree import render
from tests.unit.telemetry.building import BEGAN, SAMPLED, a_span


def span(number: int, parent: int = 0, **changes: Any) -> dict[str, Any]:
    return a_span(context=SAMPLED._replace(span_id=number, parent_id=parent), **changes).as_dict()


def chain() -> list[dict[str, Any]]:
    """web calls cart, which calls bank (failing, after a retry) and mail."""
    server = {"kind": "SERVER", "remote_host": "", "remote_port": 0}
    return [
        span(1, name="CallLocal/cart/add", service="web", remote_service="cart", end_ns=BEGAN + 40_000_000),
        span(
            2,
            1,
            name="CallLocal/cart/add",
            service="cart",
            remote_service="web",
            start_ns=BEGAN + 1_000_000,
            end_ns=BEGAN + 39_000_000,
            **server,
        ),
        span(
            3,
            2,
            name="/bank/Pay",
            service="cart",
            remote_service="bank",
            start_ns=BEGAN + 2_000_000,
            end_ns=BEGAN + 20_000_000,
            error="Code(14): UNAVAILABLE",
            events=((BEGAN + 5_000_000, "retry attempt=2 reason=connect"),),
        ),
        span(
            4,
            2,
            name="/mail/Send",
            service="cart",
            remote_service="mail",
            start_ns=BEGAN + 21_000_000,
            end_ns=BEGAN + 21_500_000,
        ),
        span(
            5,
            4,
            name="/mail/Send",
            service="mail",
            remote_service="cart",
            start_ns=BEGAN + 21_100_000,
            end_ns=BEGAN + 21_200_000,
            **server,
        ),
    ]


def test_render_chain_is_indented_by_parent_with_times_and_errors() -> None:
    assert render(reversed(chain())).splitlines() == [
        "trace 4bf92f3577b34da6a3ce929d0e0e4736  3 services, 5 spans, 40.0 ms, 1 error",
        "web  CallLocal/cart/add  client → cart (10.0.0.7:5000)  40.0 ms  +0 µs",
        "└─ cart  CallLocal/cart/add  server ← web               38.0 ms  +1.0 ms",
        "   ├─ cart  /bank/Pay  client → bank (10.0.0.7:5000)    18.0 ms  +2.0 ms  ✗ UNAVAILABLE",
        "   │     · retry attempt=2 reason=connect (+5.0 ms)",
        "   └─ cart  /mail/Send  client → mail (10.0.0.7:5000)   500 µs  +21.0 ms",
        "      └─ mail  /mail/Send  server ← cart                100 µs  +21.1 ms",
    ]


def test_render_nothing_is_nothing() -> None:
    assert render([]) == ""


def test_render_span_whose_parent_is_missing_stands_on_top_and_says_so() -> None:
    lines = render([span(2, 99), span(3, 2)]).splitlines()
    assert "(parent 0000000000000063 not seen)" in lines[1]
    assert lines[2].startswith("└─ ")


def test_render_span_handed_in_twice_appears_once() -> None:
    assert len(render([span(1), span(1)]).splitlines()) == 2


def test_render_several_traces_oldest_first() -> None:
    late = a_span(context=SAMPLED._replace(trace_id=2), start_ns=BEGAN + 1000, service="late").as_dict()
    text = render([late, span(1, service="early")])
    assert text.index("early") < text.index("late")
    assert text.count("trace ") == 2


def test_render_circle_of_parents_is_shown_and_ends() -> None:
    lines = render([span(1, 2), span(2, 1), span(3, 3)]).splitlines()
    assert len(lines) == 4


def test_render_very_deep_chain_loses_nothing() -> None:
    spans = [span(number, number - 1, start_ns=BEGAN + 1000 * number) for number in range(1, 500)]
    assert len(render(spans).splitlines()) == 500


def test_render_what_peers_sent_cannot_reach_the_terminal() -> None:
    text = render([span(1, name="\x1b[31m\nx", error="\x9bboo\r")])
    assert not set(text) & {"\x1b", "\x9b", "\r"}
    assert len(text.splitlines()) == 2


def test_render_color_differs_only_in_escapes() -> None:
    colored = render(chain(), color=True)
    assert "\x1b[31m✗ UNAVAILABLE\x1b[0m" in colored
    for escape in ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"):
        colored = colored.replace(escape, "")
    assert colored == render(chain())


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=20))
def test_render_any_parents_shows_each_span_once(edges: list[tuple[int, int]]) -> None:
    distinct = dict(reversed(edges))
    spans = [span(number, parent) for number, parent in edges]
    lines = render(spans).splitlines()
    assert len(lines) == (len(distinct) + 1 if edges else 0)
