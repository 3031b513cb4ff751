"""The API log."""

from telemetry.access_log import ApiLog
from tests.unit.telemetry.building import KeptLines, a_call, a_grpc_call

TRACE = {"trace_id": "0af7", "span_id": "b7ad", "sampled": "true"}


def test_api_log_http_and_grpc_lines() -> None:
    logged = KeptLines()
    log = ApiLog(logged.get)
    log(a_call(bytes_out=7), "/v1.0/invoke/checkout/method/orders/1", "curl/8", TRACE)
    log(a_grpc_call(grpc_code=5), "/shop.Checkout/Pay", "", TRACE)
    log(a_call(direction="inbound"), "/orders/1", "", TRACE)
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
        **TRACE,
    }
    assert (grpc["event"], grpc["method"], grpc["code"]) == ("gRPC API Called", "/shop.Checkout/Pay", 5)


def test_api_log_obfuscated_names_the_callee_or_the_endpoint_only() -> None:
    logged = KeptLines()
    log = ApiLog(logged.get, obfuscate=True)
    log(a_call(path="/secret"), "/v1.0/invoke/checkout/method/secret", "", TRACE)
    for verb, target in (
        ("GET", "/v1.0/metadata"),
        ("PUT", "/v1.0/metadata/secret"),
        ("GET", "/v1.0/healthz/"),
        ("GET", "/v1.0/state/secret"),
        ("POST", "/v1.0/metadata"),
    ):
        log(a_call(dst="", verb=verb), target, "", TRACE)
    assert [line["method"] for line in logged.lines] == [
        "InvokeService/checkout",
        "GetMetadata",
        "PutMetadata",
        "Healthz",
        "InvokeService",
        "InvokeService",
    ]


def test_api_log_health_checks_are_left_out_on_request_but_not_those_of_apps() -> None:
    logged = KeptLines()
    quiet, full = ApiLog(logged.get, omit_health_checks=True), ApiLog(logged.get)
    for log in (quiet, full):
        log(a_call(dst=""), "/v1.0/healthz", "", TRACE)
        log(a_call(dst=""), "/v1.0/healthz/outbound", "", TRACE)
        log(a_call(dst="", protocol="grpc"), "/grpc.health.v1.Health/Check", "", TRACE)
        log(a_call(protocol="grpc"), "/grpc.health.v1.Health/Check", "", TRACE)
        log(a_call(), "/v1.0/invoke/checkout/method/healthz", "", TRACE)
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
    ApiLog(logged.get)(a_call(dst="", status=401, cause="unauthenticated"), "/v1.0/metadata", "", TRACE)
    assert logged.lines == []
