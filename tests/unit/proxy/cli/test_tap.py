"""What `postern tap` asks and prints."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.api.server import LocalRequest
from proxy.cli.app import main
from proxy.cli.errors import CliError
from proxy.cli.tap import TARGET, TapOutput, render, skipped, tap_all
from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause
from proxy.control.tap_events import event_of
from proxy.wire.http_client import LocalResponse, LocalStream
from tests.unit.proxy.api.test_server import serving
from tests.unit.proxy.cli.test_commands import entry
from tests.unit.proxy.control.test_observer import LABELS, outcome, told


def event(**changes: Any) -> dict[str, Any]:
    one = outcome("/orders?x=1", **changes)
    found: dict[str, Any] = json.loads(json.dumps(event_of(told(one), one, obfuscate=False)))
    return found


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
    told_of = {"event": "skipped", "calls": 5, "reasons": {"max-rps": 3, "queue-full": 2}}
    assert skipped(told_of) == "… 5 more, not shown: 3 beyond --max-rps, 2 not read in time"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--status", "9xx"), "--status '9xx': expected statuses such as 404 or 5xx"),
        (("--slower-than", "soon"), "--slower-than 'soon': a duration such as 500ms"),
        (("--max-rps", "0"), "--max-rps '0': expected calls a second, above 0"),
    ],
)
def test_filter_that_can_not_be_read_is_a_usage_error(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tap", *words, "--runtime-path", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_nothing_to_tap_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tap", "--runtime-path", str(tmp_path)]) == 1
    assert f"no sidecar runs in {tmp_path}" in capsys.readouterr().err


# --- sidecars that answer, refuse, and end


def lines_of(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


async def sidecar(asked: LocalRequest) -> LocalResponse | LocalStream:
    """Tells of a call and of some that it left out, then ends; refuses where it is full, or too old."""
    if "to=old" in asked.target:
        return LocalResponse(404, (), b"{}")
    if "to=full" in asked.target:
        return LocalResponse(429, (), b'{"message": "8 taps are open here"}')

    async def pieces() -> AsyncGenerator[bytes]:
        yield lines_of({"event": "open"}, event())
        yield lines_of({"event": "skipped", "calls": 5, "reasons": {"max-rps": 5, "queue-full": 0}})

    return LocalStream(pieces())


async def tapped(
    tmp_path: Path,
    query: str,
    output: TapOutput = TapOutput.LINE,
    ends: AbstractContextManager[object] | None = None,
) -> None:
    path = tmp_path / "admin.sock"
    async with serving(sidecar, f"unix:{path}"):
        with ends or nullcontext():
            await tap_all((entry("web", pid=7, admin_socket=str(path)),), f"{TARGET}?{query}", output)


async def test_calls_go_to_standard_output_and_what_was_left_out_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await tapped(tmp_path, "")
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert "GET /orders" in printed.out
    assert "5 beyond --max-rps" in printed.err


async def test_json_has_every_event_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await tapped(tmp_path, "", TapOutput.JSON)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["open", "call", "skipped"]


@pytest.mark.parametrize(
    ("query", "said"), [("to=old", "restart it with this version"), ("to=full", "8 taps are open here")]
)
async def test_sidecar_that_refuses_says_why(
    query: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await tapped(tmp_path, query, ends=pytest.raises(CliError, match="no sidecar could be tapped"))
    assert said in capsys.readouterr().err


async def test_sidecar_that_does_not_answer_is_unresponsive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = entry("web", pid=7, admin_socket=str(tmp_path / "gone.sock"))
    with pytest.raises(CliError, match="no sidecar could be tapped"):
        await tap_all((gone,), TARGET, TapOutput.LINE)
    assert "web (7): unresponsive: " in capsys.readouterr().err
