"""One line per call."""

import json
from pathlib import Path

import pytest

from telemetry.access_log import AccessLog, ApiLog, AppendedFile
from telemetry.report import Call
from tests.unit.telemetry.building import KeptLines, a_call, a_grpc_call, an_attempt


def test_access_log_writes_one_json_object_with_the_calls_facts() -> None:
    lines: list[str] = []
    AccessLog(lines.append)(a_call(bytes_in=1, bytes_out=2, attempts=(an_attempt(), an_attempt())))
    (line,) = lines
    found = json.loads(line)
    assert line.count("\n") == 1
    assert (found["direction"], found["src"], found["dst"], found["path"]) == (
        "outbound",
        "cart",
        "checkout",
        "/orders/1",
    )
    assert (found["duration_us"], found["ttfb_us"], found["attempts"]) == (2000, 1500, 2)
    assert found["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert found["time"] == "2023-11-14T22:13:20.002000000Z"


def test_access_log_leaves_out_paths_where_urls_are_obfuscated() -> None:
    lines: list[str] = []
    AccessLog(lines.append, obfuscate=True)(a_call())
    assert json.loads(lines[0])["path"] == ""


def test_appended_file_keeps_what_is_there_and_outlives_a_truncation(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text("before\n")
    write = AppendedFile(path)
    write("one\n")
    assert path.read_text() == "before\none\n"
    path.write_text("")
    write("two\n")
    assert path.read_text() == "two\n"


def test_appended_file_that_takes_no_more_costs_no_call() -> None:
    AppendedFile(Path("/dev/full"))("lost\n")


@pytest.mark.parametrize(
    ("call", "written"),
    [
        (a_call(status=200), False),
        (a_call(status=400), True),
        (a_grpc_call(status=200, grpc_code=14), True),
        (a_call(status=0, cause="caller-left"), True),
    ],
)
def test_access_log_min_status_leaves_out_success(call: Call, written: bool) -> None:
    lines: list[str] = []
    AccessLog(lines.append, min_status=400)(call)
    assert bool(lines) is written


def test_access_log_slower_leaves_out_quick_calls() -> None:
    lines: list[str] = []
    AccessLog(lines.append, slower_s=0.01)(a_call())
    AccessLog(lines.append, slower_s=0.002)(a_call())
    assert len(lines) == 1


def test_api_log_http_and_grpc_lines() -> None:
    logged = KeptLines()
    log = ApiLog(logged.get)
    log(a_call(bytes_out=7), "/v1.0/invoke/checkout/method/orders/1", "curl/8")
    log(a_grpc_call(grpc_code=5), "/shop.Checkout/Pay", "")
    log(a_call(direction="inbound"), "/orders/1", "")
    http, grpc = logged.lines
    assert http == {
        "event": "HTTP API Called",
        "level": "INFO",
        "scope": "dapr.runtime.http-info",
        "method": "GET /v1.0/invoke/checkout/method/orders/1",
        "code": 200,
        "duration": 2,
        "size": 7,
        "useragent": "curl/8",
    }
    assert (grpc["event"], grpc["method"], grpc["code"]) == ("gRPC API Called", "/shop.Checkout/Pay", 5)


def test_api_log_obfuscated_names_the_callee_or_the_endpoint_only() -> None:
    logged = KeptLines()
    log = ApiLog(logged.get, obfuscate=True)
    log(a_call(path="/secret"), "/v1.0/invoke/checkout/method/secret", "")
    for verb, target in (
        ("GET", "/v1.0/metadata"),
        ("PUT", "/v1.0/metadata/secret"),
        ("GET", "/v1.0/healthz/"),
        ("GET", "/v1.0/state/secret"),
        ("POST", "/v1.0/metadata"),
    ):
        log(a_call(dst="", verb=verb), target, "")
    assert [line["method"] for line in logged.lines] == [
        "InvokeService/checkout",
        "GetMetadata",
        "PutMetadata",
        "Healthz",
        "Unknown",
        "Unknown",
    ]


def test_api_log_health_checks_are_left_out_on_request_but_not_those_of_apps() -> None:
    logged = KeptLines()
    quiet, full = ApiLog(logged.get, omit_health_checks=True), ApiLog(logged.get)
    for log in (quiet, full):
        log(a_call(dst=""), "/v1.0/healthz", "")
        log(a_call(dst=""), "/v1.0/healthz/outbound", "")
        log(a_call(dst="", protocol="grpc"), "/grpc.health.v1.Health/Check", "")
        log(a_call(protocol="grpc"), "/grpc.health.v1.Health/Check", "")
        log(a_call(), "/v1.0/invoke/checkout/method/healthz", "")
    paths = [str(line["method"]).rpartition(" ")[2] for line in logged.lines]
    assert paths == [
        "/grpc.health.v1.Health/Check",
        "/v1.0/invoke/checkout/method/healthz",
        "/v1.0/healthz",
        "/v1.0/healthz/outbound",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Check",
        "/v1.0/invoke/checkout/method/healthz",
    ]


def test_api_log_has_no_line_for_a_call_without_the_token() -> None:
    logged = KeptLines()
    ApiLog(logged.get)(a_call(dst="", status=401, cause="unauthenticated"), "/v1.0/metadata", "")
    assert logged.lines == []
