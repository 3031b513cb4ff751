"""The JSON form of OTLP."""

import json

import pytest

from telemetry.otlp.encoding import resource_of, traces_request
from telemetry.otlp.json_form import JsonFormError, from_json, request_json
from telemetry.otlp.messages_pb2 import TracesRequest
from tests.unit.telemetry.building import SAMPLED, a_span

# As OpenTelemetry's specification shows it.
EXAMPLE = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "my.library", "version": "1.0.0"},
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "EEE19B7EC3C1B174",
                            "parentSpanId": "EEE19B7EC3C1B173",
                            "name": "I'm a server span",
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                            "kind": 2,
                            "attributes": [{"key": "my.span.attr", "value": {"intValue": "7"}}],
                            "unheardOf": {"a": 1},
                        }
                    ],
                }
            ],
        }
    ]
}


def test_ids_are_hex_and_enums_numbers() -> None:
    body = traces_request([a_span(context=SAMPLED._replace(parent_id=1))], resource_of("cart", ()))
    made = json.loads(request_json(body, "traces"))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert made["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (made["spanId"], made["parentSpanId"], made["kind"]) == ("00000000000000a1", "0000000000000001", 3)
    assert made["startTimeUnixNano"] == "1700000000000000000"
    assert from_json(request_json(body, "traces"), TracesRequest).SerializeToString() == body


def test_example_of_the_specification_is_read() -> None:
    read = from_json(json.dumps(EXAMPLE).encode(), TracesRequest)
    span = read.resource_spans[0].scope_spans[0].spans[0]
    assert span.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert (span.kind, span.name, span.attributes[0].value.int_value) == (2, "I'm a server span", 7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
        b"\xff",
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(JsonFormError):
        from_json(body, TracesRequest)
