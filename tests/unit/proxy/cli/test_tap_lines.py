"""Events of taps as lines."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from proxy.cli.tap_lines import Printer, render, skipped
from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause
from proxy.control.tap_events import end_of, request_of, response_of
from tests.unit.proxy.control.test_observer import LABELS, outcome, told

OF_ALL = {"id": "ab12:7", "under_way": False}


def event(**changes: Any) -> dict[str, Any]:
    """The end of a call."""
    one = outcome("/orders?x=1", **changes)
    found: dict[str, Any] = json.loads(json.dumps({"event": "end", **OF_ALL, **end_of(told(one), one)}))
    return found


def request_event() -> dict[str, Any]:
    """That it began."""
    return {"event": "request", **OF_ALL, **request_of(told(outcome("/orders")), ())}


def response_event(**headers: str) -> dict[str, Any]:
    """That its answer did."""
    fields = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return {"event": "response", **OF_ALL, **response_of(told(outcome("/orders")), 200, 12_345_005, fields)}


def test_request_is_a_line_with_who_and_what() -> None:
    (line,) = render(request_event(), is_wide=False)
    assert " req id=ab12:7   out web.shop → cart.far" in line
    assert line.endswith("GET /orders")


def test_call_that_began_before_the_tap_says_for_how_long_it_is_under_way() -> None:
    now = datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC)
    (line,) = render(request_event() | {"under_way": True}, is_wide=False, now=now)
    assert " 12.00s " in line
    assert line.endswith("[under way]")
    (line,) = render(event() | {"under_way": True}, is_wide=False)
    assert line.endswith("[began before this tap]")


def test_answer_is_a_line_with_its_status_how_long_it_took_and_its_headers() -> None:
    (line,) = render(response_event(etag="x"), is_wide=False)
    assert " rsp id=ab12:7 " in line
    assert " 200 " in line
    assert " 12.3ms " in line
    assert line.endswith("GET /orders  etag=x")


def test_lines_of_ends_alone_need_no_id() -> None:
    (line,) = render(event(), is_wide=False, is_ends=True)
    assert "id=" not in line
    assert line.endswith("GET /orders")


def test_long_waits_are_noted() -> None:
    sent = Attempt("10.0.0.2:5000", 9_000_000, queue_ns=6_000_000, sent_ns=20_000_000)
    (line,) = render(event(attempts=[sent], ended_ns=30_000_000, resolve_ns=7_000_000), is_wide=False)
    assert line.endswith("[resolve 7.0ms, queue 6.0ms, connect 5.0ms]")


def test_request_shows_identity_rule_and_trace_where_wide() -> None:
    _, *details = render(request_event(), is_wide=True)
    assert [line.split()[0] for line in details] == ["identity", "access", "trace"]
    assert details[0].endswith("callee spiffe://public/ns/shop/web")
    assert "allowed" not in details[1]  # what becomes of it is told at its end


async def test_answer_that_ends_soon_has_no_line_of_its_own() -> None:
    printed: list[str] = []
    printer = Printer(printed.append, is_wide=False)
    for told_of in (request_event(), response_event(), event()):
        printer.show(told_of)
    assert [line.split()[1] for line in printed] == ["req", "end"]


async def test_answer_that_goes_on_has_a_line_and_so_has_one_with_headers() -> None:
    printed: asyncio.Queue[str] = asyncio.Queue()
    printer = Printer(printed.put_nowait, is_wide=False)
    printer.show(response_event(etag="x"))
    assert printed.get_nowait().endswith("etag=x")
    printing = asyncio.get_running_loop().create_task(printer.run())
    printer.show(response_event() | {"id": "ab12:8"})
    assert printed.empty()
    async with asyncio.timeout(10.0):
        assert "id=ab12:8" in await printed.get()
    printing.cancel()
    printer.show(response_event())
    printer.flush()
    assert "id=ab12:7" in printed.get_nowait()


def test_call_is_one_line_with_who_what_and_how_long() -> None:
    sent = Attempt("10.0.0.2:5000", 6_000, 20_000, 26_000, None, 200, sent_ns=9_000)
    (line,) = render(event(ended_ns=3_200_000, attempts=[sent]), is_wide=False)
    assert " out web.shop → cart.far" in line
    assert "200 " in line
    assert "3.2ms" in line
    assert line.endswith("GET /orders")


def test_failures_retries_and_plaintext_are_noted() -> None:
    failed = Attempt("10.0.0.1:5000", 10, 0, 30, Cause.CONNECT, detail="refused")
    plain = replace(LABELS, peer_id="")
    (line,) = render(event(cause=Cause.CONNECT, status=502, attempts=[failed, failed]), is_wide=False)
    assert line.endswith("[connect, by this proxy]  [2 attempts]")
    sent = Attempt("10.0.0.1:5000", 10, 20, 30, said=Cause.DENIED, sent_ns=12)
    (line,) = render(event(labels=plain, status=403, attempts=[sent]), is_wide=False)
    assert line.endswith("[denied, by the callee's proxy]  [no mTLS]")


def test_wide_has_identity_rule_attempts_times_bytes_and_trace() -> None:
    sent = Attempt("10.0.0.2:5000", 6_000, 20_000, 26_000, None, 200, sent_ns=9_000)
    _, *details = render(event(started_ns=0, attempts=[sent]), is_wide=True)
    assert [line.split()[0] for line in details] == [
        "identity",
        "access",
        "attempt",
        "time",
        "bytes",
        "trace",
    ]
    text = "\n".join(details)
    assert "callee spiffe://public/ns/shop/web, mutual TLS" in text
    assert "policy=web rule=/x reason=rule" in text
    assert "10.0.0.2:5000  200  20us" in text
    assert "connect 3us, upstream_ttfb 11us, body" in text
    assert "7 sent, 9 received" in text
    assert text.endswith(f"{0xABC:032x} (not sampled)")


def test_grpc_call_shows_its_code_and_no_verb() -> None:
    (line,) = render(
        event() | {"protocol": "grpc", "grpc_code": "NOT_FOUND", "path": "/a.B/C"}, is_wide=False
    )
    assert "NOT_FOUND" in line
    assert line.endswith("  /a.B/C")


def test_hostile_names_and_paths_can_not_move_the_cursor() -> None:
    lines = list(render(event() | {"path": "/\x1b[2J\u202e", "peer": "x\ny"}, is_wide=True))
    assert all(line.isprintable() for line in lines)


def test_unknown_caller_and_hidden_path_are_said_to_be() -> None:
    (line,) = render(event() | {"path": "", "src": ""}, is_wide=False)
    assert "? → cart.far" in line
    assert line.endswith("(path hidden)")


def test_what_was_left_out_is_told_with_the_reason() -> None:
    told_of = {"event": "skipped", "calls": 5, "reasons": {"max-rps": 3, "queue-full": 2, "engine-busy": 0}}
    assert skipped(told_of) == "… 5 more, not shown: 3 beyond --max-rps, 2 not read in time"
