"""HTTP/1.1 callers and apps, through one engine and through two."""

import asyncio
import hashlib
import json
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import http_app, raw_app
from tests.conformance.harness import TRACEPARENT, leading
from tests.support.http_client import connect
from tests.support.http_wire import Response, format_chunk, format_end, read_head


def echoed(response: Response) -> dict[str, Any]:
    """What the app under test says it got."""
    content: dict[str, Any] = json.loads(response.body)
    content["fields"] = {name.lower(): value for name, value in content["headers"]}
    return content


async def test_request_with_query_reaches_the_app_unchanged(engine: str, hops: str) -> None:
    target = "/echo/a%20b/;v=1/?q=a%zz&b=1;c+d"
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", target, headers=[("X-Odd", "a,  b")])
    got = echoed(response)
    assert (response.status, got["method"], got["target"]) == (200, "GET", target)
    assert got["fields"]["x-odd"] == "a,  b"


async def test_request_gets_trace_header_of_the_span(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request(
            "GET", "/echo", headers=[("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")]
        )
    values = [value for name, value in echoed(response)["headers"] if name.lower() == "traceparent"]
    assert values == [TRACEPARENT.decode()]


async def test_hop_by_hop_headers_stay_on_their_hop(engine: str, hops: str) -> None:
    sent = [
        ("Connection", "keep-alive, x-secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "gzip"),
        ("Proxy-Connection", "keep-alive"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ]
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/echo", headers=sent)
    assert response.status == 200
    assert {name.lower() for name, _ in sent} & set(echoed(response)["fields"]) - {"connection"} == set()


async def test_repeated_headers_keep_their_order(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/echo", headers=[("X-A", "1"), ("X-B", "2"), ("X-A", "3")])
        cookies = await caller.request("GET", "/status?header=set-cookie:a=1&header=set-cookie:b=2")
    got = [(name.lower(), value) for name, value in echoed(response)["headers"]]
    assert [value for name, value in got if name == "x-a"] == ["1", "3"]
    assert [value for name, value in cookies.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]


@pytest.mark.parametrize("code", [200, 201, 302, 404, 418, 500, 503, 599])
async def test_status_passes_unchanged(engine: str, hops: str, code: int) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", f"/status?code={code}&header=location:/else")
    assert (response.status, response.get("location")) == (code, "/else")
    assert response.body == f"status {code}".encode()


async def test_request_body_by_length_keeps_its_length(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("POST", "/echo", body=b"hello")
    got = echoed(response)
    assert (got["body"], got["fields"].get("content-length")) == ("hello", "5")
    assert "transfer-encoding" not in got["fields"]


async def test_chunked_request_body_stays_chunked(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("POST", "/echo", chunks=[b"he", b"llo"])
    got = echoed(response)
    assert (got["body"], got["fields"].get("transfer-encoding")) == ("hello", "chunked")
    assert "content-length" not in got["fields"]


async def test_post_without_body_has_length_zero_or_none(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("POST", "/echo", headers=[("Content-Length", "0")])
    got = echoed(response)
    assert (got["body"], got["fields"].get("content-length")) == ("", "0")


async def test_response_by_length_keeps_its_length(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/bytes?n=1000")
    assert (response.get("content-length"), len(response.body)) == ("1000", 1000)


async def test_chunked_response_stays_chunked(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/bytes?n=1000&chunk=300")
    assert (response.get("transfer-encoding"), len(response.body)) == ("chunked", 1000)
    assert not response.get("content-length")


async def test_head_keeps_the_content_length_without_a_body(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("HEAD", "/status?code=200")
        after = await caller.request("GET", "/status?code=200")
    assert (response.status, response.get("content-length"), response.body) == (200, "10", b"")
    assert after.body == b"status 200"


@pytest.mark.parametrize("code", [204, 304])
async def test_bodiless_status_ends_with_its_head(engine: str, hops: str, code: int) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", f"/status?code={code}&header=etag:x")
        after = await caller.request("GET", "/status?code=200")
    assert (response.status, response.get("etag"), response.body, after.status) == (code, "x", b"", 200)


async def test_426_says_what_to_upgrade_to(engine: str, hops: str) -> None:
    """RFC 9110 §15.5.22. An app's own header of the name that carries it is no one's word."""
    for target, told in (
        ("/status?code=426&header=upgrade:foo/2&header=postern-upgrade:bar", "foo/2"),
        ("/status?code=200&header=upgrade:foo/2", ""),
    ):
        async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
            response = await caller.request("GET", target)
        assert response.get("upgrade", "") == told
        assert ("upgrade" in response.get("connection", "").lower()) == bool(told)
        assert not response.get("postern-upgrade", "")


async def test_304_may_say_the_length_that_a_200_would_have(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nEtag: x\r\n\r\n")

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        first = await caller.request("GET", "/")
        second = await caller.request("GET", "/")
    assert (first.status, first.get("etag"), second.status) == (304, "x", 304)
    assert first.get("content-length") in ("100", "")


async def test_request_trailers_reach_the_app(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("POST", "/echo", chunks=[b"x"], trailers=[("X-Sum", "9")])
    assert [(name.lower(), value) for name, value in echoed(response)["trailers"]] == [("x-sum", "9")]


async def test_response_trailers_reach_the_caller(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/trailers")
    assert [(name.lower(), value) for name, value in response.trailers] == [("x-checksum", "abc123")]


@pytest.mark.parametrize(
    "trailer", ["te: gzip", "connection: close", "keep-alive: 1", "upgrade: h2c", "proxy-connection: x"]
)
async def test_hop_by_hop_trailer_of_an_app_harms_no_other_call(engine: str, hops: str, trailer: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await read_head(reader)) is not None:
            last = (
                b"0\r\n\r\n"
                if head.second == "/slow"
                else b"0\r\n" + trailer.encode() + b"\r\nx-sum: 9\r\n\r\n"
            )
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            if head.second == "/slow":
                await reader.readuntil(b"go")
            writer.write(last)

    async with (
        raw_app(app) as port,
        leading(engine, hops, port) as way,
        connect(way.port) as caller,
        connect(way.port) as other,
    ):
        await other.send_head("POST", "/slow", [("Content-Length", "2")])
        await other.read_response_head()
        response = await caller.request("GET", "/bad")
        await other.send(b"go")
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 2)
    assert response.body == b"x"
    assert [outcome.cause for outcome in way.front.seen.outcomes] == [None, None]


async def test_early_hints_come_before_the_answer(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/hints")
    assert [(head.first, head.second, head.third, head.get("link")) for head in response.interim] == [
        ("HTTP/1.1", "103", "Early Hints", "</a.css>; rel=preload")
    ]
    assert response.body == b"hinted"


async def test_expect_is_answered_by_the_app_before_the_body_is_sent(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send_head("POST", "/echo", [("Expect", "100-continue"), ("Content-Length", "5")])
        interim = await read_head(caller.reader)
        await caller.send(b"hello")
        response = await caller.read_response("POST")
    assert interim is not None
    assert (interim.second, echoed(response)["body"]) == ("100", "hello")


async def test_expect_refused_by_the_app_needs_no_body(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send_head(
            "POST", "/early?code=413", [("Expect", "100-continue"), ("Content-Length", "5")]
        )
        response = await caller.read_response("POST")
    assert (response.status, response.body) == (413, b"early")


async def test_early_answer_ends_the_upload(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send_head("POST", "/early?code=401", [("Content-Length", "1000000")])
        await caller.send(b"x" * 1000)
        response = await caller.read_response("POST")
    assert (response.status, response.body) == (401, b"early")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_upload_answered_early_leaves_the_connection_for_the_next_request(
    engine: str, hops: str, chunked: bool
) -> None:
    """A caller that has written all of it, as far as it can see, goes on at once."""
    body = b"x" * 400_000
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send_head("POST", "/early?code=404", [framing])
        first = await caller.read_response("POST")
        await caller.send(format_chunk(body) + format_end([]) if chunked else body)
        second = await caller.request("POST", "/echo", body=b"next")
    assert (first.status, first.get("connection")) == (404, "")
    assert (second.status, echoed(second)["body"]) == (200, "next")


async def test_event_stream_is_flushed_per_event(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in (b"1", b"2", b"3"):
            writer.write(b"9\r\ndata: " + number + b"\n\n\r\n")
            await told.acquire()  # the next event only once the caller has this one
        writer.write(b"0\r\n\r\n")

    told = asyncio.Semaphore(0)
    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await caller.send_head("GET", "/", [("Accept", "text/event-stream")])
        head = await caller.read_response_head()
        got = []
        async for part in caller.body("GET", head, []):
            got.append(part)
            told.release()
    assert got == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


async def test_connection_is_kept_alive_between_calls(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        statuses = [(await caller.request("POST", "/echo", body=b"x")).status for _ in range(5)]
    assert statuses == [200] * 5
    assert way.front.seen.opened == 1


async def test_pipelined_requests_are_answered_in_order(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        requests = [
            f"POST /echo/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n:02}" for n in range(20)
        ]
        await caller.send("".join(requests).encode())
        got = [echoed(await caller.read_response("POST")) for _ in range(20)]
    assert [(g["target"], g["body"]) for g in got] == [(f"/echo/{n}", f"{n:02}") for n in range(20)]


async def test_http_1_0_caller_gets_a_body_until_close(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send(b"GET /bytes?n=1000&chunk=300 HTTP/1.0\r\nHost: a\r\n\r\n")
        head = await caller.read_response_head()
        body = b"".join([part async for part in caller.body("GET", head, [])])
        after = await caller.reader.read()
    assert (head.second, len(body), after) == ("200", 1000, b"")
    assert not head.get("transfer-encoding")


async def test_http_1_0_app_body_until_close_is_whole(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 5000)
        await writer.drain()

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/")
    assert (response.status, len(response.body)) == (200, 5000)


@pytest.mark.parametrize("when", ["body", "length"])
async def test_truncated_answer_never_ends_cleanly(engine: str, hops: str, when: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send_head("GET", f"/die?when={when}")
        with pytest.raises((Exception,)) as caught:
            await caller.read_response("GET")
        outcome = await way.front.seen.outcome()
    assert type(caught.value).__name__ in ("HttpSyntaxError", "ConnectionResetError")
    assert outcome.cause is Cause.RESET_LATE


async def test_truncated_answer_resets_an_http_1_0_caller(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        await caller.send(b"GET /die?when=body HTTP/1.0\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


async def test_app_that_hangs_up_without_an_answer_is_a_502(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/die?when=head")
        outcome = await way.back.seen.outcome()
    assert (response.status, outcome.cause) == (502, Cause.RESET_EARLY)
    assert response.get("postern-error") == "reset-early"


async def test_large_bodies_arrive_intact_both_ways(engine: str, hops: str) -> None:
    size = 64 << 20
    block = bytes(range(256)) * 4096

    async def upload(writer: asyncio.StreamWriter) -> None:
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()

    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        got = hashlib.sha256()
        async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
            await caller.send_head("POST", "/duplex", [("Content-Length", str(size))])
            tasks.create_task(upload(caller.writer))
            head = await caller.read_response_head()
            async for part in caller.body("POST", head, []):
                got.update(part)
        outcome = await way.front.seen.outcome()
    wanted = hashlib.sha256()
    for _ in range(size // len(block)):
        wanted.update(block)
    assert got.digest() == wanted.digest()
    assert (outcome.up_bytes, outcome.down_bytes, outcome.cause) == (size, size, None)


# --- what a strict reader may forgive ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_before_a_request_are_skipped(engine: str, start: bytes) -> None:
    """RFC 9112 §2.2."""
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        await caller.send(start)
        assert (await caller.request("GET", "/")).status == 200
        await caller.send(start)
        assert (await caller.request("GET", "/")).status == 200


async def test_later_minor_version_is_read_as_http_1_1(engine: str) -> None:
    """RFC 9110 §2.5."""
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        await caller.send(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")
        assert (await caller.read_response("GET")).status == 200


@pytest.mark.parametrize("size", [65_000, 200_000])
async def test_target_of_any_length_passes_or_is_414(engine: str, hops: str, size: int) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        with suppress(ConnectionError):
            await caller.send(b"GET /echo?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * size))
        assert (await caller.read_response("GET")).status == (200 if size < 65_536 else 414)


async def test_answer_without_a_date_gets_one(engine: str, hops: str) -> None:
    """RFC 9110 §6.6.1."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n")

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        added = (await caller.request("GET", "/")).get("date")
        own = (await caller.request("GET", "/")).get("date")
    assert added is not None
    assert abs(parsedate_to_datetime(added).timestamp() - time.time()) < 10.0
    assert own == "Tue, 15 Nov 1994 08:12:31 GMT"


async def test_refusal_of_a_request_has_a_date(engine: str) -> None:
    """RFC 9110 §6.6.1."""
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        answer = await caller.request("GET", "/" + "a" * 70_000)
    assert answer.status == 414
    assert abs(parsedate_to_datetime(answer.get("date")).timestamp() - time.time()) < 10.0
