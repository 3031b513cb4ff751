"""The access log of real sidecars, on both engines: the same lines at both ends, filters, headers, rotation and what is hidden."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from telemetry.line_form import KEYS
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Pair, eventually, invoke, pair
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import SharedSentry
from tests.support.proto.echo_pb2 import EchoRequest


class Logged:
    """Two sidecars and what they wrote."""

    def __init__(self, found: Pair) -> None:
        self.mesh = found.mesh
        self.web = found.web
        self.shop = found.shop

    async def end(self) -> None:
        """Shut both down: they write what is left."""
        await asyncio.gather(self.web.end(), self.shop.end())

    async def get(self, path: str, *headers: tuple[str, str]) -> str:
        """Call a path of `shop`; the trace's id."""
        answer = await request(self.web.http_port, "GET", invoke("shop", path), headers=headers)
        return dict(answer.headers)["traceparent"].split("-")[1]

    def text(self, app: str) -> str:
        """All that a sidecar wrote."""
        path = self.mesh.files / f"{app}.log"
        return path.read_text() if path.exists() else ""

    async def lines(self, app: str, count: int) -> list[str]:
        """So many lines at least."""

        async def are_there() -> bool:
            return self.text(app).count("\n") >= count

        await eventually(are_there)
        return self.text(app).splitlines()


@asynccontextmanager
async def logging(
    engine: str, files: Path, shared: SharedSentry, *flags: str, config: str = NO_SECRET_FOR_WEB
) -> AsyncIterator[Logged]:
    rules = files / "rules.yaml"
    rules.write_text(config)

    def to(app: str) -> tuple[str, ...]:
        return ("--access-log", str(files / f"{app}.log"), "--config", str(rules))

    of_both = ("--engine", engine, *flags)
    async with pair(files, shared, flags=of_both, shop=to("shop"), web=to("web")) as found:
        yield Logged(found)


@pytest.mark.parametrize("engine", ENGINES)
async def test_call_has_a_line_with_every_key_at_both_sidecars(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    async with logging(engine, tmp_path, shared, "--access-log-headers", "user-agent") as logged:
        trace_id = await logged.get("/bytes?n=7&card=visa", ("user-agent", 'curl "8"'))
        denied = await logged.get("/secret")
        out, refused = [json.loads(line) for line in (await logged.lines("web", 2))[:2]]
        into, at_callee = [json.loads(line) for line in (await logged.lines("shop", 2))[:2]]
    for line in (out, into):
        assert list(line) == [*KEYS, "user-agent"]
        assert (line["src"], line["dst"], line["path"], line["verb"]) == ("web", "shop", "/bytes", "GET")
        assert (line["status"], line["grpc_code"], line["cause"], line["made_by"]) == (200, None, None, None)
        assert (line["bytes_in"], line["bytes_out"], line["attempts"]) == (0, 7, 1)
        assert (line["trace_id"], line["protocol"], line["user-agent"]) == (trace_id, "http", 'curl "8"')
        assert 0 < line["ttfb_us"] <= line["duration_us"] < 60_000_000
        assert (len(line["span_id"]), line["sampled"], len(line["time"])) == (16, True, 30)
        assert "visa" not in json.dumps(line)
    assert (out["direction"], out["peer"]) == ("outbound", "spiffe://public/ns/default/shop")
    assert (into["direction"], into["peer"]) == ("inbound", "spiffe://public/ns/default/web")
    assert out["endpoint"].endswith(f":{logged.shop.peer_port}")
    assert (refused["trace_id"], refused["status"]) == (denied, 403)
    assert (refused["cause"], refused["made_by"]) == ("denied", "peer-proxy")
    assert (at_callee["cause"], at_callee["made_by"]) == ("denied", "this-proxy")
    assert "/secret" in at_callee["decision"]
    assert refused["bytes_out"] == at_callee["bytes_out"] > 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_grpc_calls_have_lines_with_their_code(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    async with logging(
        engine, tmp_path, shared, "--access-log-format", "verb,path,status,grpc_code,protocol"
    ) as logged:
        await logged.mesh.sidecar("echo", app=await logged.mesh.grpc_app(), flags=("--engine", engine))
        async with grpc.aio.insecure_channel(f"localhost:{logged.web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
            await client.unary(EchoRequest(message="x"))
        (line,) = [json.loads(line) for line in await logged.lines("web", 1)]
    assert line == {
        "verb": "POST",
        "path": "/testing.EchoService/Unary",
        "status": 200,
        "grpc_code": "OK",
        "protocol": "grpc",
    }


@pytest.mark.parametrize("engine", ENGINES)
async def test_template_and_filters_choose_what_is_written(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    flags = ("--access-log-format", "{method} {path} {status} {cause}", "--access-log-min-status", "400")
    async with logging(engine, tmp_path, shared, *flags) as logged:
        await logged.get("/bytes?n=1")
        await logged.get("/status?code=404")
        await logged.get("/secret")
        lines = await logged.lines("web", 2)
        await logged.lines("shop", 2)
        await logged.end()
        lines = logged.text("web").splitlines()
    assert "GET /bytes 200 -" not in lines
    assert lines[0] == "GET /status 404 -"
    assert lines[-1] == "GET /secret 403 denied"


@pytest.mark.parametrize("engine", ENGINES)
async def test_paths_are_told_as_people_read_them(engine: str, tmp_path: Path, shared: SharedSentry) -> None:
    sent = ("/caf%C3%A9%20x/../a%2Fb", "/caf%C3%A9%20x/", "/a%253Bb;c", "/%C3%28", "/%22%5C")
    async with logging(engine, tmp_path, shared, "--access-log-format", "path") as logged:
        for path in sent:
            await logged.get(path)
        lines = [json.loads(line)["path"] for line in await logged.lines("web", len(sent))]
    assert lines == ["/a%2Fb", "/café x", "/a%253Bb;c", "/%C3%28", "/%22%5C"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_sample_is_the_same_at_both_ends_and_has_every_denial(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    flags = ("--access-log-format", "trace_id,path", "--access-log-sample", "4")
    async with logging(engine, tmp_path, shared, *flags) as logged:
        for _ in range(40):
            await logged.get("/bytes?n=1")
        for _ in range(3):
            await logged.get("/secret")
        await logged.end()
        web, shop = (sorted(logged.text(app).splitlines()) for app in ("web", "shop"))
    assert web == shop
    assert sum("/secret" in line for line in web) == 3
    taken = [line for line in web if "/secret" not in line]
    assert 0 < len(taken) < 40
    assert all(int(json.loads(line)["trace_id"], 16) % 4 == 0 for line in taken)


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_line_is_lost_over_rotations_and_shutdown(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    flags = ("--access-log-format", "{path}", "--access-log-max-size", "2Ki", "--access-log-keep", "99")
    async with logging(engine, tmp_path, shared, *flags) as logged:
        for number in range(300):
            await logged.get(f"/bytes/{number}-{'x' * 20}")
        await logged.end()
        files = sorted(tmp_path.glob("web.log*"))  # noqa: ASYNC240 - a few, and nobody waits
        lines = [line for path in files for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"/bytes/{number}-{'x' * 20}" for number in range(300))
    assert len(files) > 1
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("engine", ENGINES)
async def test_paths_are_hidden_where_urls_are_obfuscated(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    hidden = NO_SECRET_FOR_WEB + "  logging: {apiLogging: {obfuscateURLs: true}}\n"
    async with logging(engine, tmp_path, shared, config=hidden) as logged:
        await logged.get("/bytes?n=1")
        for app in ("web", "shop"):
            (line,) = await logged.lines(app, 1)
            assert (json.loads(line)["path"], "bytes?" in line) == ("", False)


CONFIGURED = """
kind: Configuration
metadata: {{name: rules}}
spec: {{logging: {{accessLog: {{{}}}}}}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_configuration_says_what_is_in_it_also_when_it_changes(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    first = CONFIGURED.format("format: 'verb,path,status', headers: [x-kind], minStatus: 400")
    async with logging(engine, tmp_path, shared, config=first) as logged:
        await logged.get("/bytes?n=1")
        await logged.get("/status?code=404", ("x-kind", "a"))
        (line,) = await logged.lines("web", 1)
        assert json.loads(line) == {"verb": "GET", "path": "/status", "status": 404, "x-kind": "a"}
        (tmp_path / "rules.yaml").write_text(CONFIGURED.format("format: '{status} {path}'"))
        for sidecar in (logged.web, logged.shop):
            await sidecar.process.line("policies reloaded.*generation=2")
        await logged.get("/bytes?n=1")
        assert (await logged.lines("web", 2))[1:] == ["200 /bytes"]
        (tmp_path / "rules.yaml").write_text(CONFIGURED.format("format: 'colour'"))
        await logged.web.process.line("access log not changed, the old form stays in force.*'colour'")
        await logged.get("/bytes?n=1")
        assert (await logged.lines("web", 3))[2:] == ["200 /bytes"]


async def test_flags_win_over_the_configuration_and_without_a_log_it_says_so(
    tmp_path: Path, shared: SharedSentry
) -> None:
    config = CONFIGURED.format("format: path, sample: 1, slowerThan: 1h")
    flags = ("--access-log-format", "verb", "--access-log-slower", "0s")
    async with logging("auto", tmp_path, shared, *flags, config=config) as logged:
        await logged.get("/bytes?n=1")
        assert await logged.lines("web", 1) == ['{"verb":"GET"}']
        other = await logged.mesh.sidecar("other", flags=("--config", str(tmp_path / "rules.yaml")))
        warning = "spec.logging.accessLog has no effect without --access-log"
        await other.process.line(warning)
        assert other.process.output.count(warning) == 1


BREAKER = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: guards}
spec:
  policies:
    retries: {none: {policy: constant, maxRetries: 0}}
    circuitBreakers: {second: {timeout: 1h, trip: consecutiveFailures >= 2}}
  targets: {apps: {shop: {circuitBreaker: second, retry: none}}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_lines_say_how_a_call_left_its_circuit_breaker(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    resources = tmp_path / "resources"
    resources.mkdir()
    (resources / "guards.yaml").write_text(BREAKER)
    flags = ("--resources-path", str(resources), "--access-log-format", "{status} {cause} {breaker}")
    async with logging(engine, tmp_path, shared, *flags) as logged:
        for path in ("/status?code=200", "/status?code=500", "/status?code=500", "/status?code=200"):
            await logged.get(path)
        out, into = await logged.lines("web", 4), await logged.lines("shop", 3)
    assert [line.split()[0::2] for line in out[:3]] == [["200", "closed"], ["500", "closed"], ["500", "open"]]
    assert out[3].split()[1:] == ["breaker-open", "open"]
    assert {line.split()[-1] for line in into} == {"-"}
