"""Rows of the scenario table of resiliency (shared spec, `resiliency.md` §14) over injected faults, on both engines: no app misbehaves.

Faults happen within attempts at the caller, so each row counts them as its access log does. Statuses are those of Dapr's surface.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

FLAG: Final = "--enable-fault-injection"
BODY: Final = b"x" * 100_000
LONG_S: Final = 60


@dataclass(frozen=True, slots=True)
class Met:
    """How a call ends, and after how many attempts. code: of gRPC, in place of a status. status 0: it breaks off."""

    status: int
    attempts: int
    error: str = ""
    code: grpc.StatusCode | None = None
    path: str = "/echo"
    how: Mapping[str, Any] = field(default_factory=dict)
    least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """Rules of a target, the faults that it has, and what becomes of calls to it, one after the other."""

    number: str
    policies: str
    target: str
    faults: str
    met: tuple[Met, ...]

    def document(self) -> str:
        """A Resiliency and a Traffic."""
        entries = "" if self.target == "none" else f"shop: {self.target}, echo: {self.target}"
        return (
            "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: rows}\nspec:\n"
            f"  policies: {self.policies}\n  targets: {{apps: {{{entries}}}}}\n---\n"
            "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: rows}\nspec:\n  targets:\n"
            f"    apps: {{shop: {{faults: [{self.faults}]}}, echo: {{faults: [{self.faults}]}}}}\n"
        )


def retry(maximum: int, **matching: str) -> str:
    """Policies with one of retries, `r`."""
    only = "".join(f', matching: {{{key}: "{codes}"}}' for key, codes in matching.items())
    return f"{{retries: {{r: {{policy: constant, duration: 20ms, maxRetries: {maximum}{only}}}}}}}"


def abort(status: int, *, times: int | None = None, name: str = "broken") -> str:
    """A fault that answers HTTP calls."""
    only = "" if times is None else f", times: {times}"
    return f"{{name: {name}, abort: {{status: {status}}}{only}}}"


def end(code: int, *, times: int | None = None, name: str = "broken") -> str:
    """A fault that ends gRPC calls."""
    only = "" if times is None else f", times: {times}"
    return f"{{name: {name}, abort: {{grpc: {code}}}{only}}}"


def breaker(name: str, *, retries: str = "") -> str:
    """Policies with a circuit breaker that opens after three failures in a row; each row has its own."""
    trip = "{trip: consecutiveFailures >= 3, timeout: 60s}"
    return f"{{{retries}circuitBreakers: {{{name}: {trip}}}}}"


GONE = "{name: gone, unavailable: true}"
SLOW = f"{{name: slow, delay: {LONG_S}s}}"
R = "{retry: r}"
POST = {"method": "POST", "body": BODY}
CHUNKED = {"method": "POST", "chunks": [b"a", b"b"]}
OPEN = "breaker-open"
IN_TIME = "timeouts: {t: 1s}"  # for a slow machine to get as far as the fault
CODE = grpc.StatusCode
NONE = Row("none", "{}", "none", "", ())  # in force before the first: equal rules would not be read anew
ROWS = (
    Row("1", "{}", "none", abort(500), (Met(500, 1),)),
    Row("2", "{}", "none", abort(404), (Met(404, 1),)),
    Row("3", "{}", "none", GONE, (Met(500, 4, "connect", least_s=2.9),)),
    Row("10", "{}", "{}", GONE, (Met(500, 1, "connect"),)),
    Row("11", retry(3), R, abort(500), (Met(500, 4),)),
    Row("12", retry(3), R, abort(404), (Met(404, 4),)),
    Row("13", retry(3), R, abort(302), (Met(302, 1),)),
    Row("14", retry(3), R, abort(500, times=2), (Met(200, 3),)),
    Row("15", retry(3), R, abort(500, times=1), (Met(200, 2, how=POST),)),
    Row("16", retry(3), R, abort(500), (Met(500, 1, how=CHUNKED),)),
    Row("17", retry(3, httpStatusCodes="500-599"), R, abort(404), (Met(404, 1),)),
    Row("18", retry(3, httpStatusCodes="500-599"), R, abort(503), (Met(503, 4),)),
    Row(
        "19",
        retry(3, httpStatusCodes="500-599"),
        R,
        f"{abort(503, times=1)}, {abort(404, name='then')}",
        (Met(404, 2),),
    ),
    Row("20", retry(2, httpStatusCodes="503"), R, GONE, (Met(500, 3, "connect"),)),
    Row(
        "22 and 23",
        breaker("c22"),
        "{circuitBreaker: c22}",
        abort(500, times=3),
        (*(Met(500, 1),) * 3, Met(500, 1, OPEN), Met(200, 1, path="/other")),
    ),
    Row(
        "25",
        breaker("c25"),
        "{circuitBreaker: c25}",
        abort(404),
        (*(Met(404, 1),) * 3, Met(500, 1, OPEN)),
    ),
    Row(
        "26",
        breaker("c26", retries="retries: {r: {policy: constant, duration: 20ms, maxRetries: 3}}, "),
        "{retry: r, circuitBreaker: c26}",
        abort(500),
        (Met(500, 3, OPEN),),
    ),
    Row("27", f"{{{IN_TIME}}}", "{timeout: t}", SLOW, (Met(500, 1, "timeout", least_s=1.0),)),
    Row(
        "28",
        f"{{{IN_TIME}, retries: {{r: {{policy: constant, duration: 20ms, maxRetries: 3}}}}}}",
        "{timeout: t, retry: r}",
        SLOW,
        (Met(500, 4, "timeout", least_s=4.0),),
    ),
    Row(
        "29, corrected: visibly",
        "{timeouts: {t: 3s}}",  # for the answer's head, which comes in it
        "{timeout: t}",
        "{name: thin, bandwidth: 100}",
        (Met(0, 1, how=POST, least_s=2.5),),
    ),
    Row("35 once", retry(2, gRPCStatusCodes="14"), R, end(5), (Met(0, 1, code=CODE.NOT_FOUND),)),
    Row("35 thrice", retry(2, gRPCStatusCodes="14"), R, end(14), (Met(0, 3, code=CODE.UNAVAILABLE),)),
    Row(
        "35 twice",
        retry(2, gRPCStatusCodes="14"),
        R,
        f"{end(14, times=1)}, {end(5, name='then')}",
        (Met(0, 2, code=CODE.NOT_FOUND),),
    ),
    Row("36", retry(2), R, end(13, times=1), (Met(0, 2, code=CODE.OK),)),
    Row(
        "39",
        "{circuitBreakers: {c39: {trip: consecutiveFailures >= 2, timeout: 60s}}}",
        "{circuitBreaker: c39}",
        end(5),
        (*(Met(0, 1, code=CODE.NOT_FOUND),) * 2, Met(0, 1, OPEN, code=CODE.UNKNOWN)),
    ),
)


@dataclass(slots=True)
class Scene:
    """web calls shop (HTTP) and echo (gRPC); its log has a line for each call. Mutable state: how often its rules were written."""

    web: Sidecar
    rules: Path
    log: Path
    generation: int = 1

    async def rule(self, row: Row) -> None:
        """Have the rules of a row in force."""
        self.rules.write_text(row.document(), encoding="utf-8")
        self.generation += 1
        await self.web.process.line(f"policies reloaded.*generation={self.generation}\\b")

    def lines(self) -> list[dict[str, Any]]:
        """What the access log has so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    async def call(self, met: Met) -> dict[str, Any]:
        """One call that must end so; returns its line."""
        before = len(self.lines())
        if met.code is not None:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self.web.grpc_port}") as channel:
                call = EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).unary(
                    EchoRequest(message="hi")
                )
                assert await call.code() is met.code
        else:
            assert await self._status(met) == met.status

        async def is_logged() -> bool:
            return len(self.lines()) > before

        await eventually(is_logged)
        return self.lines()[before]

    async def _status(self, met: Met) -> int:
        how = {"method": "GET", **met.how}
        try:
            answer = await request(self.web.http_port, how.pop("method"), invoke("shop", met.path), **how)
        except (OSError, HttpSyntaxError, asyncio.IncompleteReadError):
            return 0
        if met.status == 200 and "body" in how:
            assert how["body"].decode() in answer.body.decode()
        assert answer.get("postern-error") == met.error
        return answer.status


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """On each engine. A row leaves nothing behind for the next: it has rules of its own."""
    folder = tmp_path_factory.mktemp("rows")
    engine = ("--engine", str(request.param))
    async with Mesh(folder) as mesh:
        rules, log = mesh.write("web/rules.yaml", NONE.document()), folder / "web.log"
        flags = (
            *(*engine, FLAG, "--resources-path", str(rules.parent), "--access-log", str(log)),
            *("--replay-buffer-size", "1Mi"),
        )
        http_app, grpc_app = await asyncio.gather(mesh.http_app(), mesh.grpc_app())
        await mesh.start_sentry()
        _, _, web = await asyncio.gather(
            mesh.sidecar("shop", app=http_app, flags=engine),
            mesh.sidecar("echo", app=grpc_app, flags=engine),
            mesh.sidecar("web", flags=flags),
        )
        yield Scene(web, rules, log)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
async def test_row_of_the_table_holds(scene: Scene, row: Row) -> None:
    await scene.rule(row)
    for number, met in enumerate(row.met):
        line = await scene.call(met)
        assert line["attempts"] == met.attempts, (number, line)
        assert line["duration_us"] >= met.least_s * 1e6, (number, line)
        is_harmed = met.error != OPEN and met.path == "/echo"
        assert (line["fault"] is not None) or not is_harmed, (number, line)
