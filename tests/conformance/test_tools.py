"""Clients that others wrote: curl, nghttp, h2load. Skipped by name where one is not installed."""

import asyncio
import re

import pytest

from tests.conformance.apps import http_app
from tests.conformance.harness import leading
from tests.support.tools import tool


async def said(*command: str) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(20):
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


async def test_curl_upgrade_to_h2c_is_ignored(engine: str) -> None:
    curl = tool("curl")
    async with http_app() as app, leading(engine, "one", app) as way:
        output = await said(
            curl, "-sS", "--http2", "-w", "\n%{http_version}", f"http://127.0.0.1:{way.port}/echo"
        )
    assert output.endswith("\n1.1")
    assert "http2-settings" not in output.lower()


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
    found = re.search(r"requests: (.*)", output)
    assert found is not None, output
    assert "400 succeeded, 0 failed, 0 errored, 0 timeout" in found[1]
