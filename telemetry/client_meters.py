"""The meters of unary gRPC calls that the sidecar makes itself: of the app's callback and of sentry."""

from collections.abc import Callable, Sequence
from typing import Protocol

from telemetry.names import grpc_code_name
from telemetry.series import Counter, Histogram

_PREFIX = "dapr_grpc_io_client_"
_LABELS = ("app_id", "grpc_client_method", "grpc_client_status")


class RpcEnded(Protocol):
    """Told of each such call."""

    def __call__(self, method: str, code: int, took_s: float, sent: int, received: int) -> None:
        """`method`: as `/package.Service/Method`; `sent` and `received`: bytes of the messages."""


class GrpcClientMeters:
    """Counts calls, their times and sizes. counter, latency, histogram: declare a metric."""

    def __init__(
        self,
        app_id: str,
        *,
        counter: Callable[[str, str, Sequence[str]], Counter],
        latency: Callable[[str, str, Sequence[str]], Histogram],
        size: Callable[[str, str, Sequence[str]], Histogram],
    ) -> None:
        self._app_id = app_id
        self._completed = counter(
            f"{_PREFIX}completed_rpcs", "Unary gRPC calls to the app and sentry.", _LABELS
        )
        self._latency = latency(f"{_PREFIX}roundtrip_latency", "Their time, in milliseconds.", _LABELS)
        self._sent = size(f"{_PREFIX}sent_bytes_per_rpc", "Size of their requests.", _LABELS[:2])
        self._received = size(f"{_PREFIX}received_bytes_per_rpc", "Size of their answers.", _LABELS[:2])

    def ended(self, method: str, code: int, took_s: float, sent: int, received: int) -> None:
        """See RpcEnded."""
        labels = (self._app_id, method, grpc_code_name(code))
        self._completed.add(*labels)
        self._latency.slot(*labels).observe(int(took_s * 1000))
        self._sent.slot(*labels[:2]).observe(sent)
        self._received.slot(*labels[:2]).observe(received)
