"""What collectors answer."""

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from telemetry.otlp.answers import rejected, retry_delay_s
from telemetry.otlp.messages_pb2 import PartialSuccess, Response, RetryInfo, RpcStatus


def test_rejection_is_read_in_both_forms() -> None:
    said = Response(partial_success=PartialSuccess(rejected=3, error_message="too old"))
    assert rejected(said.SerializeToString(), is_json=False) == (3, "too old")
    text = b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}}'
    assert rejected(text, is_json=True) == (3, "too old")


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>", b"\xff\xff", b"[]", b'{"partialSuccess": 1}'])
@pytest.mark.parametrize("is_json", [True, False])
def test_answer_that_says_nothing_rejects_nothing(answer: bytes, *, is_json: bool) -> None:
    assert rejected(answer, is_json=is_json)[0] == 0


def test_retry_delay_is_that_of_retry_info() -> None:
    info = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)).SerializeToString()
    detail = Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info)
    trailers = (
        ("x", "y"),
        ("grpc-status-details-bin", RpcStatus(code=8, details=[detail]).SerializeToString()),
    )
    assert retry_delay_s(trailers) == 2.5
    assert retry_delay_s((("grpc-status-details-bin", b"\xff"),)) is None
    assert retry_delay_s(()) is None
