"""Clients that others wrote: curl, nghttp, h2load. Skipped by name where one is not installed."""

import asyncio
from pathlib import Path

import pytest

from proxy.contract.gates import RateGate
from tests.conformance.apps import http_app
from tests.conformance.harness import leading
from tests.support.tools import tool


async def said(*command: str) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return output.decode(errors="replace")


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
async def test_curl_posts_and_reads_the_echo(engine: str, hops: str, version: str) -> None:
    curl = tool("curl")
    async with http_app() as app, leading(engine, hops, app) as way:
        url = f"http://127.0.0.1:{way.port}/echo"
        output = await said(curl, "-sS", version, "--data", "hello", "-w", "\n%{http_code}", url)
    assert output.endswith("\n200")
    assert '"body": "hello"' in output


async def test_curl_comes_again_when_a_limit_says_so(engine: str) -> None:
    curl = tool("curl")
    async with http_app() as app, leading(engine, "one", app, gates=("g",)) as way:
        way.front.engine.set_gate("g", RateGate(per_s=1.0, burst=1, name="calls", policy='"calls";q=1;w=1'))
        url = f"http://127.0.0.1:{way.port}/echo"
        asked = (curl, "-s", "--retry", "5", "-w", "\n%{http_code}")
        outputs = [await said(*asked, url) for _ in range(2)]
        refused = way.front.engine.stats().gates["g"].refused
    assert all(output.endswith("\n200") for output in outputs), outputs
    assert refused == {"rate": 1}  # it waited for the second that it was told


@pytest.mark.parametrize(("body", "version"), [((), "2"), (("--data", "hello"), "1.1")])
async def test_curl_upgrades_to_h2c(engine: str, hops: str, body: tuple[str, ...], version: str) -> None:
    """A request with a body is answered over HTTP/1.1, and the next one on the same connection offers again."""
    curl = tool("curl")
    async with http_app() as app, leading(engine, hops, app) as way:
        url = f"http://127.0.0.1:{way.port}/echo"
        output = await said(curl, "-sS", "--http2", *body, "-w", "\n%{http_version}\n", url, url)
    assert output.count(f"\n{version}\n") == 2
    assert '"http2-settings"' not in output.lower()


async def test_javas_client_upgrades_to_h2c(engine: str) -> None:
    java = tool("java")
    async with http_app() as app, leading(engine, "one", app) as way:
        source = str(Path(__file__).with_name("HttpClientCalls.java"))
        output = await said(java, source, f"http://127.0.0.1:{way.port}/echo")
    assert output.split("\n")[:4] == ["200 HTTP_2 false", "200 HTTP_2 true"] * 2
    assert output.split("\n")[4:8] == ["200 HTTP_1_1 true", *["200 HTTP_2 false", "200 HTTP_2 true"] * 2][:4]


async def test_nghttp_upgrades_to_h2c(engine: str, hops: str) -> None:
    nghttp = tool("nghttp")
    async with http_app() as app, leading(engine, hops, app) as way:
        urls = [f"http://127.0.0.1:{way.port}/bytes?n={n}00000" for n in range(1, 5)]
        output = await said(nghttp, "-unv", *urls)
    assert "HTTP Upgrade success" in output
    assert output.count(":status: 200") == 4
    assert output.count("recv SETTINGS frame <length=0, flags=0x01") == 1


async def test_curl_expects_continue_for_a_large_body(engine: str, hops: str) -> None:
    curl = tool("curl")
    async with http_app() as app, leading(engine, hops, app) as way:
        url = f"http://127.0.0.1:{way.port}/sink"
        output = await said(curl, "-sS", "-H", "Expect: 100-continue", "--data", "x" * 100_000, url)
    assert '"bytes": 100000' in output


async def test_nghttp_gets_many_paths_on_one_connection(engine: str, hops: str) -> None:
    nghttp = tool("nghttp")
    async with http_app() as app, leading(engine, hops, app) as way:
        urls = [f"http://127.0.0.1:{way.port}/status?code=200&n={n}" for n in range(10)]
        output = await said(nghttp, "-nv", *urls)
    assert output.count(":status: 200") == 10


async def test_h2load_loses_no_request(engine: str, hops: str) -> None:
    h2load = tool("h2load")
    async with http_app() as app, leading(engine, hops, app) as way:
        output = await said(
            h2load, "-n", "400", "-c", "5", "-m", "20", f"http://127.0.0.1:{way.port}/bytes?n=2000"
        )
        told = [
            outcome
            for outcome in (*way.front.seen.outcomes, *way.back.seen.outcomes)
            if outcome.status != 200
        ]
    assert "400 succeeded, 0 failed, 0 errored, 0 timeout" in output, f"{output}\n{told}"
