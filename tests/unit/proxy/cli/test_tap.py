"""What `postern tap` asks and prints."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from proxy.api.server import LocalRequest
from proxy.cli.app import main
from proxy.cli.errors import CliError
from proxy.cli.tap import TARGET, TapOutput, tap_all
from proxy.wire.http_client import LocalResponse, LocalStream
from tests.unit.proxy.api.test_server import serving
from tests.unit.proxy.cli.test_commands import entry
from tests.unit.proxy.cli.test_tap_lines import event, request_event, response_event


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--status", "9xx"), "--status '9xx': expected statuses such as 404 or 5xx"),
        (("--slower-than", "soon"), "--slower-than 'soon': a duration such as 500ms"),
        (("--sample", "2"), "--sample '2': expected a share of calls"),
        (("--headers", "Authorization"), "authorization may hold secrets and is never shown"),
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
        yield lines_of({"event": "open"}, request_event(), response_event(), event())
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
    request, end = printed.out.splitlines()
    assert "req id=ab12:7" in request
    assert "end id=ab12:7" in end
    assert "GET /orders" in end
    assert "5 beyond --max-rps" in printed.err


async def test_json_has_every_event_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await tapped(tmp_path, "", TapOutput.JSON)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["open", "request", "response", "end", "skipped"]


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
