"""What of a call tells whether it may be sent twice. Pure."""

from typing import Final

from proxy.contract.recording import RecordingHead
from proxy.deciding.app_plan import IDEMPOTENT
from proxy.deciding.callee import IDEMPOTENCY_SET, TRUTHY_SET

IDEMPOTENCY: Final = frozenset({b"idempotency-key"})  # a pattern as `proxy.contract.plan.carries` reads it


def is_declared_stream(head: RecordingHead) -> bool:
    """`dapr-stream`: timeout and retries cover the opening only."""
    return head.protocol() == "grpc" and head.header_is(b"dapr-stream", TRUTHY_SET)


def is_unknown_length(head: RecordingHead) -> bool:
    """Whether it has a body of unknown length, which is never sent twice."""
    return head.protocol() != "grpc" and head.framing() == "stream"


def is_idempotent(head: RecordingHead) -> bool:
    """Whether an HTTP call may be carried out twice, by its method or its Idempotency-Key. gRPC calls count as such: nobody can tell."""
    if head.protocol() == "grpc" or head.method() in IDEMPOTENT:
        return True
    return head.carries(IDEMPOTENCY_SET)
