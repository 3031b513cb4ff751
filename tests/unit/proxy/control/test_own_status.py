"""Parts of `/status`."""

import random

import pytest

from policies.rules.configuration import TracingConfig
from proxy.control.own_status import collector_of, exporters_status, query_of
from telemetry.exporting import ExportLimits, ExportQueue
from telemetry.logs import get_logger
from telemetry.otlp.exporter import OtlpExporter
from telemetry.otlp.target import OtlpTarget
from telemetry.zipkin import ZipkinExporter


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://user:secret@zipkin.example/api?token=x", "zipkin.example:80"),
        ("https://[::1]:9/x", "[::1]:9"),
        ("https://z", "z:443"),
        ("//collector:4317", "collector:4317"),
        ("http://z:port", ""),
        ("", ""),
    ],
)
def test_collector_is_told_without_what_else_a_url_holds(url: str, address: str) -> None:
    assert collector_of(url) == address


def test_exporters_tell_what_waits_and_what_was_lost() -> None:
    url = "http://127.0.0.1:1/spans"
    queue = ExportQueue(
        ZipkinExporter(url), limits=ExportLimits(), log=get_logger("x"), random=random.Random(0)
    )
    assert exporters_status((queue,), TracingConfig(zipkin_endpoint=url), {}) == [
        {"name": "zipkin", "collector": "127.0.0.1:1", "query": "", "queued": 0, "exported": 0, "dropped": {}}
    ]
    target = OtlpTarget(host="c", port=4317, protocol="grpc", headers=(("key", "hush"),))
    sending = ExportQueue(
        OtlpExporter(target, "web"), limits=ExportLimits(), log=get_logger("x"), random=random.Random(0)
    )
    told = exporters_status((sending,), TracingConfig(), {"otlp": target.address})
    assert (told[0]["name"], told[0]["collector"]) == ("otlp", "c:4317")


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:9411/api/v2/spans", "http://localhost:9411"),
        ("https://me:secret@zipkin.example/base/api/v2/spans", "https://zipkin.example/base"),
        ("http://collector:4318/v1/traces", ""),
        ("", ""),
    ],
)
def test_zipkin_is_asked_where_its_endpoint_for_spans_is(endpoint: str, url: str) -> None:
    assert query_of(endpoint) == url
