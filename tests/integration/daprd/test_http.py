"""HTTP between our sidecars and daprds, both ways: every ordered pair, bodies and streams both ways, access rules, failures."""

import asyncio
import json
import uuid
from typing import Any

import grpc.aio
import pytest

from tests.integration.daprd.mixed import NAMES, Mixed
from tests.integration.mesh.standing import eventually, invoke
from tests.support.dapr_client import DaprClient
from tests.support.daprd import reason_missing
from tests.support.http_client import connect, request
from tests.support.http_wire import Response, format_chunk, format_end

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))
HTTP = [name for name in NAMES if name.endswith("http")]
GRPC = [name for name in NAMES if name.endswith("grpc")]
PAIRS = [(caller, callee) for caller in NAMES for callee in HTTP if caller != callee]
TRACE = "a1" * 16
OURS = [pair for pair in PAIRS if any(name.startswith("postern") for name in pair)]
TO_GRPC = [(caller, callee) for caller in NAMES for callee in GRPC if caller != callee]


def crossing(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those between the two kinds of sidecars."""
    return [(caller, callee) for caller, callee in pairs if caller[:5] != callee[:5]]


FROM_OURS = [pair for pair in crossing(PAIRS) if pair[0].startswith("postern")]

TO_OURS = [pair for pair in crossing(PAIRS) if pair[1].startswith("postern")]


async def call(mixed: Mixed, caller: str, callee: str, method: str, path: str, **more: Any) -> Response:
    """One call by Dapr's path form."""
    return await request(mixed[caller].http_port, method, invoke(callee, path), timeout_s=20.0, **more)


def seen(answer: Response) -> dict[str, Any]:
    """What the app says that it was asked; header names in lower case."""
    told: dict[str, Any] = json.loads(answer.body)
    told["headers"] = [(name.lower(), value) for name, value in told["headers"]]
    return told


@pytest.mark.parametrize(("caller", "callee"), OURS)
async def test_request_and_answer_are_carried(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    got = await call(mesh_of_both, caller, callee, "GET", "/echo/a%20b/c+d?x=1&y=%20z;w")
    assert got.status == 200
    told = seen(got)
    assert (told["app"], told["method"], told["target"]) == (callee, "GET", "/echo/a%20b/c+d?x=1&y=%20z;w")
    assert told["body"] == ""
    sent = [
        *(("Content-Type", "text/x-note"), ("X-Twice", "a"), ("X-Twice", "b"), ("Cookie", "k=v")),
        *(("Connection", "X-Hop"), ("X-Hop", "1"), ("traceparent", f"00-{TRACE}-{'b' * 16}-01")),
    ]
    posted = await call(mesh_of_both, caller, callee, "POST", "/echo", headers=sent, body=b"hello")
    told = seen(posted)
    headers = told["headers"]
    assert (posted.status, told["body"], posted.get("x-app")) == (200, "hello", callee)
    assert [value for name, value in headers if name == "x-twice"] in (["a", "b"], ["a,b"], ["a, b"])
    named = dict(headers)
    assert (named["content-type"], named["content-length"], named["cookie"]) == ("text/x-note", "5", "k=v")
    assert not {"x-hop", "dapr-app-id", "destination-app-id", "postern-callee"} & set(named)
    assert named["dapr-caller-app-id"] == caller
    assert named["dapr-callee-app-id"] == callee
    assert named["traceparent"][3:35] == TRACE


@pytest.mark.parametrize("name", HTTP)
async def test_app_that_calls_itself_is_told_of_no_caller(mesh_of_both: Mixed, name: str) -> None:
    headers = [("dapr-caller-app-id", "admin")] if name.startswith("postern") else []
    got = await call(mesh_of_both, name, name, "GET", "/echo", headers=headers)
    assert not [pair for pair in seen(got)["headers"] if pair[0].startswith(("dapr-call", "x-forwarded"))]


GRPCS = [("X-Raw-Bin", "AAE="), ("Grpc-Timeout", "1n"), ("Grpc-Status-Details-Bin", "AAE=")]


@pytest.mark.parametrize(("caller", "callee"), OURS)
async def test_names_of_grpc_are_plain_fields_between_ours_and_as_daprs_across(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    got = await call(mesh_of_both, caller, callee, "GET", "/echo", headers=GRPCS)
    found = {(name, value) for name, value in seen(got)["headers"] if "grpc-" in name or "-bin" in name}
    if (caller, callee) in crossing(PAIRS):
        assert found - {("dapr-grpc-accept-encoding", "gzip")} == {("dapr-grpc-timeout", "1n")}
    else:
        assert found == {(name.lower(), value) for name, value in GRPCS}


@pytest.mark.parametrize(("caller", "callee"), [pair for pair in TO_GRPC if pair[1] == "postern-grpc"])
async def test_names_of_grpc_mean_nothing_to_the_call_of_on_invoke(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    answer = await call(mesh_of_both, caller, callee, "GET", "/x", headers=GRPCS)
    assert answer.status == 200, answer.body
    told = dict(json.loads(answer.body)["metadata"])
    assert (told["x-raw-bin"], told["dapr-grpc-timeout"]) == ("\x00\x01", "1n")
    assert "grpc-status-details-bin" not in told


@pytest.mark.parametrize(("caller", "callee"), OURS)
async def test_verbs_and_statuses_are_carried(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    for verb in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert seen(await call(mesh_of_both, caller, callee, verb, "/echo"))["method"] == verb
    head = await call(mesh_of_both, caller, callee, "HEAD", "/echo")
    assert (head.status, head.body) == (200, b"")
    for code in (201, 204, 304, 404, 418, 500, 503):
        answer = await call(mesh_of_both, caller, callee, "GET", f"/status?code={code}&header=x-mark:m{code}")
        assert (answer.status, answer.get("x-mark")) == (code, f"m{code}")
        assert answer.body == (b"" if code in (204, 304) else f"status {code}".encode())
    moved = await call(mesh_of_both, caller, callee, "GET", "/status?code=302&header=location:/elsewhere")
    assert (moved.status, moved.get("location")) == (302, "/elsewhere")


@pytest.mark.parametrize(("caller", "callee"), OURS)
async def test_large_bodies_stream_both_ways(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    body = bytes(range(256)) * 12_000
    whole = await call(mesh_of_both, caller, callee, "POST", "/sink", body=body)
    assert json.loads(whole.body)["bytes"] == len(body)
    parts = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    chunked = await call(mesh_of_both, caller, callee, "POST", "/sink", chunks=parts)
    assert json.loads(chunked.body)["bytes"] == len(body)
    down = await call(mesh_of_both, caller, callee, "GET", "/bytes?n=9000000")
    assert down.body == (bytes(range(256)) * 256 * 138)[:9_000_000]
    empty = await call(mesh_of_both, caller, callee, "POST", "/sink", body=b"")
    assert json.loads(empty.body)["bytes"] == 0


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS))
async def test_each_piece_of_a_body_reaches_the_app_before_the_next_is_sent(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    """Of a request: pieces of an answer are held back by a daprd 1.14, so `test_releases_called` has those."""
    key = uuid.uuid4().hex

    async def taken() -> int:
        answer = await call(mesh_of_both, "postern-grpc", callee, "GET", "/stats")
        return sum(json.loads(answer.body)["scripts"].get(key, []))

    async with asyncio.timeout(20.0), connect(mesh_of_both[caller].http_port) as connection:
        chunked = [("Transfer-Encoding", "chunked")]
        await connection.send_head("POST", invoke(callee, f"/script?key={key}"), chunked)
        for length in (5, 10):
            await connection.send(format_chunk(b"piece"))

            async def is_taken(length: int = length) -> bool:
                return await taken() == length

            await eventually(is_taken)
        await connection.send(format_end([]))
        assert (await connection.read_response("POST")).body == b"attempt 1"


@pytest.mark.parametrize(
    ("caller", "callee"), crossing([pair for pair in PAIRS if pair[0].startswith("daprd")])
)
async def test_endless_answer_streams_and_ends_with_its_caller(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    async def cut() -> int:
        stats = json.loads((await call(mesh_of_both, "postern-grpc", callee, "GET", "/stats")).body)
        return int(stats["cut"])

    before = await cut()
    async with connect(mesh_of_both[caller].http_port) as connection:
        await connection.send_head("GET", invoke(callee, "/sse?n=100000000&every_s=0"))
        head = await connection.read_response_head()
        assert head.get("content-type") == "text/event-stream"
        got = 0
        async for part in connection.body("GET", head, []):
            got += len(part)
            if got > 1_000_000:
                break

    async def is_cut() -> bool:
        return await cut() > before

    await eventually(is_cut)


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS))
async def test_access_rules_of_the_callee_hold(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    is_denied = caller.endswith("http")
    for target in ("/secret", "/secret/x", "//secret", "/x/../secret", "/%73ecret"):
        answer = await call(mesh_of_both, caller, callee, "GET", target)
        assert answer.status == (403 if is_denied else 200), target
        if is_denied:
            told = json.loads(answer.body)
            assert told["errorCode"] == "ERR_DIRECT_INVOKE"
            assert "PermissionDenied" in told["message"]
            assert f"spiffe://public/ns/default/{caller}" in told["message"] or caller in told["message"]
    assert (await call(mesh_of_both, caller, callee, "GET", "/secrets")).status == 200


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS))
async def test_identity_is_the_certificates_not_a_headers(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    forged = [
        *(("dapr-caller-app-id", "admin"), ("dapr-caller-namespace", "prod"), ("dapr-callee-app-id", "x")),
        *(("postern-peer", "spiffe://public/ns/default/admin"), ("postern-trust-domain", "evil")),
    ]
    answer = await call(mesh_of_both, caller, callee, "GET", "/echo", headers=forged)
    if caller.startswith("daprd") and answer.status != 200:
        return  # a daprd sends the forged callee on, which ours refuses to be
    headers = seen(answer)["headers"]
    assert {value for name, value in headers if name == "dapr-caller-app-id"} == {caller}
    assert not [name for name, _ in headers if name.startswith("postern-")]


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS))
async def test_app_that_answers_early_is_heard(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    answer = await call(mesh_of_both, caller, callee, "POST", "/early?code=413", body=b"x" * 3_000_000)
    assert (answer.status, answer.body) == (413, b"early")
    again = await call(mesh_of_both, caller, callee, "GET", "/echo")
    assert again.status == 200


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS))
async def test_app_that_hangs_up_is_a_failure(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    answer = await call(mesh_of_both, caller, callee, "POST", "/die?when=head", body=b"x")
    assert answer.status == 500
    assert json.loads(answer.body)["errorCode"] == "ERR_DIRECT_INVOKE"


@pytest.mark.parametrize(("caller", "callee"), FROM_OURS)
@pytest.mark.parametrize("path", ["/a%2Fb", "/a%5Cb", "/a%2541", "/a%25b", "/a%FFb", "/a%23b", "/a%3Fb"])
async def test_path_of_many_readings_is_not_sent(
    mesh_of_both: Mixed, caller: str, callee: str, path: str
) -> None:
    answer = await call(mesh_of_both, caller, callee, "GET", path)
    assert answer.status == 400
    assert json.loads(answer.body)["errorCode"] == "ERR_DIRECT_INVOKE"


@pytest.mark.parametrize(("caller", "callee"), TO_OURS)
@pytest.mark.parametrize("path", ["/joe%40example.com", "/a%3Ab%2Cc", "/a%20b/%C3%BC", "/%C3%BC%40"])
async def test_escapes_of_a_daprds_client_stay(
    mesh_of_both: Mixed, caller: str, callee: str, path: str
) -> None:
    answer = await call(mesh_of_both, caller, callee, "GET", f"/echo{path}")
    assert seen(answer)["target"] == f"/echo{path}"


@pytest.mark.parametrize(("caller", "callee"), crossing(TO_GRPC))
async def test_grpc_app_is_called_by_on_invoke(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    answer = await call(mesh_of_both, caller, callee, "PUT", "/hello/x?y=1", body=b"hi")
    told = json.loads(answer.body)
    assert (answer.status, told["method"], told["verb"], told["body"]) == (200, "hello/x", "PUT", "hi")
    assert told["query"] == "y=1"
    failed = await call(mesh_of_both, caller, callee, "GET", "/fail")
    assert failed.status == 400
    assert json.loads(failed.body)["code"] == 9


@pytest.mark.parametrize(("caller", "callee"), TO_GRPC)
async def test_binary_metadata_and_packed_messages_reach_on_invoke(
    mesh_of_both: Mixed, caller: str, callee: str
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh_of_both[caller].grpc_port}") as channel:
        ended = await DaprClient(channel).invoke(
            *(callee, "hello"),
            data=b"data",
            type_url="x/Y",
            content_type="a/b",
            metadata=(("x-raw-bin", b"\x00\x01"),),
        )
    told = json.loads(ended.response.data.value)
    assert dict(told["metadata"])["x-raw-bin"] == "\x00\x01"
    assert (told["type_url"], told["content_type"], told["body"]) == ("x/Y", "a/b", "data")


@pytest.mark.parametrize(("caller", "callee"), crossing(PAIRS + TO_GRPC))
async def test_invoke_service_crosses(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh_of_both[caller].grpc_port}") as channel:
        ended = await DaprClient(channel).invoke(callee, "echo", verb="POST", data=b"data")
    told = json.loads(ended.response.data.value)
    assert told["body"] == "data"
