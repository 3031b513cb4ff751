"""`spec.tracing`: each field changes what spans are begun from and what they say, on both engines."""

import asyncio
import json
from typing import Any

import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.integration.telemetry.collector import Collector, collecting
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.errors import ProcessEndedError
from tests.support.http_client import request
from tests.support.mesh import Mesh

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def traced(collector: Collector, more: str, other: str = "") -> str:
    """A Configuration that sends all spans there."""
    return (
        "kind: Configuration\nspec:\n  tracing:\n    samplingRate: '1'\n"
        f"    zipkin: {{endpointAddress: '{collector.url}'}}\n    {more}\n  {other}\n"
    )


def tags(collector: Collector, kind: str) -> dict[str, str]:
    """Of the only span of that kind."""
    (found,) = [span for span in collector.spans if span["kind"] == kind]
    return dict(found["tags"])


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_say_what_the_configuration_wants(engine: str, mesh: Mesh, http_app: App) -> None:
    more = "conventions: dapr\n    captureQuery: true\n    baggageAttributes: [tenant]"
    async with collecting() as collector:
        flags = ("--engine", engine, "--config", str(mesh.write("t.yaml", traced(collector, more))))
        shop = await mesh.sidecar("shop", app=http_app, flags=flags)
        web = await mesh.sidecar("web", flags=flags)
        headers = [("baggage", "tenant=%C3%A4;p=1,user=x")]
        assert (
            await request(web.http_port, "GET", invoke("shop", "/echo?a=1"), headers=headers)
        ).status == 200
        for sidecar in (web, shop):
            assert await sidecar.end() == 0
        caller, callee = tags(collector, "CLIENT"), tags(collector, "SERVER")
    assert caller["url.full"] == "/v1.0/invoke/shop/method/echo?a=1"
    assert (caller["baggage.tenant"], callee["baggage.tenant"]) == ("ä", "ä")
    assert "baggage.user" not in caller
    assert (caller["dapr.status_code"], caller["server.address"]) == ("200", "127.0.0.1")
    assert "server.port" not in caller
    assert not {"url.path", "http.response.status_code", "client.address"} & {*caller, *callee}


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_in_memory_say_the_same_and_callees_name_the_route(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    async with collecting() as collector:
        paths = 'metrics: {http: {pathMatching: ["/{word}"]}}'
        config = traced(collector, "captureQuery: true\n    baggageAttributes: [tenant]", paths)
        flags = ("--engine", engine, "--config", str(mesh.write("t.yaml", config)))
        shop = await mesh.sidecar("shop", app=http_app, flags=flags)
        plain = traced(collector, "captureQuery: true\n    baggageAttributes: [tenant]")
        flags = ("--engine", engine, "--config", str(mesh.write("p.yaml", plain)))
        web = await mesh.sidecar("web", flags=flags)
        answer = await request(
            web.http_port,
            "GET",
            invoke("shop", "/echo?a=1"),
            headers=[("baggage", "tenant=b")],
        )
        trace_id = dict(answer.headers)["traceparent"].split("-")[1]
        found: dict[str, Any] = {}

        async def are_there() -> bool:  # a call's only once it is quite over
            for sidecar in (web, shop):
                told = json.loads((await sidecar.admin(f"/trace?id={trace_id}")).body)
                found.update({span["kind"]: span["tags"] for span in told["spans"]})
            return len(found) == 2

        await eventually(are_there)
    assert found["CLIENT"]["url.full"].endswith("/echo?a=1")
    assert (found["CLIENT"]["baggage.tenant"], found["SERVER"]["baggage.tenant"]) == ("b", "b")
    assert found["SERVER"]["http.route"] == "/{word}"
    assert "http.route" not in found["CLIENT"]
    assert found["SERVER"]["client.address"] == "127.0.0.1"


@pytest.mark.parametrize("engine", ENGINES)
async def test_b3_is_read_unless_w3c_alone_is_accepted(engine: str, mesh: Mesh, http_app: App) -> None:
    path = mesh.write("t.yaml", "kind: Configuration\nspec: {tracing: {accept: [w3c, b3]}}\n")
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    web = await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path)))

    async def trace_id(name: str, value: str) -> str:
        answer = await request(web.http_port, "GET", invoke("shop", "/echo"), headers=[(name, value)])
        return dict(answer.headers)["traceparent"].split("-")[1]

    b3 = ("b3", f"{TRACE}-00f067aa0ba902b7-1")
    assert await trace_id(*b3) == TRACE
    path.write_text("kind: Configuration\nspec: {tracing: {accept: [w3c]}}\n")
    await web.process.line("policies reloaded.*generation=2")
    assert await trace_id("traceparent", PARENT) == TRACE

    async def is_passed_over() -> bool:
        return await trace_id(*b3) != TRACE

    await eventually(is_passed_over)


RULES = """
kind: Configuration
spec:
  tracing:
    samplingRate: "0.000001"
    baggage: strict
    forceFrom: [web]
    rules:
      - {target: shop, method: "/echo", header: {x-debug: ["1"]}, samplingRate: "1", maxPerSecond: 2}
      - {target: shop, method: "/status", samplingRate: "1"}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_rules_sample_new_traces_and_a_header_forces_them(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    path = mesh.write("rules.yaml", RULES)
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    web = await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path)))

    async def flags(path: str, *headers: tuple[str, str]) -> str:
        answer = await request(web.http_port, "GET", invoke("shop", path), headers=headers)
        return dict(answer.headers)["traceparent"].split("-")[3]

    debug, unsampled = ("x-debug", "1"), ("traceparent", PARENT[:-1] + "0")
    assert await flags("/echo") == "00"
    assert await flags("/status?code=200") == "01"
    assert await flags("/status?code=200", unsampled) == "00"
    assert [await flags("/echo", debug) for _ in range(2)] == ["01", "01"]

    async def is_used_up() -> bool:  # more than two in a second, which takes a machine that makes them
        return "00" in await asyncio.gather(*(flags("/echo", debug) for _ in range(20)))

    await eventually(is_used_up)
    assert await flags("/echo", ("postern-trace", "1")) == "01"
    assert await flags("/echo", unsampled, ("postern-trace", "1")) == "01"
    assert await flags("/echo", ("postern-trace", "0")) == "00"
    refused = await request(web.http_port, "GET", invoke("shop", "/echo"), headers=[("baggage", "a=1,b")])
    assert refused.status == 400
    path.write_text(RULES.replace("strict", "lenient").replace("[web]", "[shop]"))
    await web.process.line("policies reloaded.*generation=2")

    async def is_common() -> bool:
        return await flags("/echo", ("postern-trace", "1")) == "00"

    await eventually(is_common)
    accepted = await request(web.http_port, "GET", invoke("shop", "/echo"), headers=[("baggage", "a=1,b")])
    assert accepted.status == 200
    text = (await web.admin("/metrics")).body.decode()
    assert 'postern_baggage_dropped_total{reason="malformed"} 1.0' in text


@pytest.mark.parametrize("engine", ENGINES)
async def test_sampler_of_the_environment_samples_new_traces(engine: str, mesh: Mesh, http_app: App) -> None:
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    flags = ("--engine", engine)
    off = await mesh.sidecar("off", flags=flags, env={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    on = await mesh.sidecar("on", flags=flags, env={"OTEL_TRACES_SAMPLER": "parentbased_always_on"})
    for web, expected in ((off, "00"), (on, "01")):
        answer = await request(web.http_port, "GET", invoke("shop", "/echo"))
        assert dict(answer.headers)["traceparent"].split("-")[3] == expected
        answer = await request(
            web.http_port, "GET", invoke("shop", "/echo"), headers=[("traceparent", PARENT)]
        )
        assert dict(answer.headers)["traceparent"].split("-")[3] == "01"


HIDING = """
kind: Configuration
spec:
  logging: {apiLogging: {enabled: true, obfuscateURLs: true}}
  tracing:
    samplingRate: "1"
    zipkin: {endpointAddress: "%s"}
  accessControl:
    defaultAction: allow
    policies:
    - {appId: web, defaultAction: deny, trustDomain: public, namespace: default}
    - {appId: shop, defaultAction: deny, trustDomain: public, namespace: default}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_denials_tell_no_path_where_paths_are_hidden(engine: str, mesh: Mesh, http_app: App) -> None:
    async with collecting() as collector:
        config = mesh.write("hiding.yaml", HIDING % collector.url)
        flags = ("--engine", engine, "--config", str(config))
        shop = await mesh.sidecar("shop", app=http_app, flags=flags)
        web = await mesh.sidecar("web", flags=flags)
        told: list[bytes] = []
        for caller in (web, shop):  # the second calls itself
            for target, headers in (
                (invoke("shop", "/private"), ()),
                ("/private", (("dapr-app-id", "shop"),)),
            ):
                answer = await request(caller.http_port, "GET", target, headers=headers)
                assert (answer.status, b"private" in answer.body) == (403, False), answer.body
                told.append(answer.body)
        assert all(b"operation: (hidden) verb: GET" in body for body in told)
        for sidecar in (web, shop):
            assert await sidecar.end() == 0
            assert "private" not in sidecar.process.output
        assert len(collector.spans) >= 4
        assert "private" not in json.dumps(collector.spans)
        config.write_text((HIDING % collector.url).replace("obfuscateURLs: true", "obfuscateURLs: false"))
        shop = await mesh.sidecar("shop", app=http_app, flags=flags)
        answer = await request(shop.http_port, "GET", "/private", headers=[("dapr-app-id", "shop")])
        assert b"operation: /private verb: GET" in answer.body


TAIL = """
kind: Configuration
spec:
  tracing:
    samplingRate: "0"
    zipkin: {endpointAddress: "%s"}
    tail: {latency: "0", callable: "%s"}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_promoted_spans_are_exported_and_so_is_what_the_callable_wants(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    async with collecting() as collector:
        config = mesh.write("tail.yaml", TAIL % (collector.url, ""))
        flags = ("--engine", engine, "--config", str(config))
        shop = await mesh.sidecar("shop", app=http_app, flags=flags)
        web = await mesh.sidecar("web", flags=flags)
        target = invoke("shop", "/status?code=")
        assert (await request(web.http_port, "GET", f"{target}200")).status == 200
        assert (await request(web.http_port, "GET", f"{target}503")).status == 503

        async def is_exported() -> bool:
            return {span["kind"] for span in collector.spans} == {"CLIENT", "SERVER"}

        await eventually(is_exported, within_s=60.0)
        assert {span["tags"]["sampling.promoted"] for span in collector.spans} == {"true"}
        assert {span["tags"]["http.response.status_code"] for span in collector.spans} == {"503"}
        config.write_text(
            TAIL % (collector.url, "operator:truth")
        )  # which wants every call that tells anything

        async def is_wanted() -> bool:
            await request(web.http_port, "GET", f"{target}200")
            return any(span["tags"]["http.response.status_code"] == "200" for span in collector.spans)

        await eventually(is_wanted, within_s=60.0)
        config.write_text(TAIL % (collector.url, "json:loads"))  # which takes no mapping
        lost = 'postern_tail_callable_lost_total{reason="raised"}'

        async def is_counted() -> bool:
            assert (await request(web.http_port, "GET", f"{target}200")).status == 200
            answer = await request(web.metrics_port, "GET", "/metrics")
            return any(
                line.startswith(lost) and float(line.split()[-1]) >= 2
                for line in answer.body.decode().splitlines()
            )

        await eventually(is_counted, within_s=60.0)
        await web.process.line("the tail callable failed")
        assert web.process.output.count("the tail callable failed") == 1
        assert shop.process.output.count("the tail callable failed") <= 1


async def test_callable_that_can_not_be_loaded_names_the_field(mesh: Mesh) -> None:
    config = mesh.write("tail.yaml", TAIL % ("http://127.0.0.1:9/api/v2/spans", "no_such_module:wants"))
    with pytest.raises(
        ProcessEndedError, match=r"tail\.yaml:7: spec\.tracing\.tail\.callable: .*no_such_module.*pipx inject"
    ):
        await mesh.sidecar("web", flags=("--config", str(config)))
