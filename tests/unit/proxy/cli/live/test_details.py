"""What the page asks for once."""

import pytest

from proxy.cli.live.details import zipkin_of


@pytest.mark.parametrize(
    ("exporters", "found"),
    [
        ([{"name": "zipkin", "query": "http://zipkin:9411"}], "http://zipkin:9411"),
        ([{"name": "otlp", "query": ""}, {"name": "zipkin", "query": "https://z"}], "https://z"),
        ([{"name": "zipkin", "query": "javascript:alert(1)"}], ""),
        ([{"name": "zipkin"}, "odd", None], ""),
        ("odd", ""),
    ],
)
def test_zipkin_is_linked_only_by_an_address_of_http(exporters: object, found: str) -> None:
    assert zipkin_of([{}, {"exporters": exporters}]) == found
