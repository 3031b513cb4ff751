"""Traces of InvokeService's calls that come to no call of an app: the engine only sees the app ask this sidecar's own API."""

import time

from proxy.contract.head import Headers
from proxy.contract.plan import REFUSED, Cause
from proxy.control.hop_tracing import ContextSpan, HopTracing
from telemetry.calls import CallRecorder
from telemetry.logs import Logger, call_fields
from telemetry.report import Call

INVOKE_SERVICE = "/dapr.proto.runtime.v1.Dapr/InvokeService"


class RefusedCalls:
    """Keeps their spans, up to a rate, and logs them."""

    def __init__(self, hops: HopTracing, recorder: CallRecorder, log: Logger) -> None:
        self._hops = hops
        self._recorder = recorder
        self._log = log

    def __call__(self, headers: Headers, cause: Cause, grpc_code: int) -> bytes:
        """The `traceparent` of the answer."""
        span = self._hops.by_rule(self._hops.begin(headers, grpc=True), REFUSED)
        assert isinstance(span, ContextSpan)
        now_ns = time.time_ns()
        self._recorder.trace(
            Call(
                direction="outbound",
                protocol="grpc",
                surface="dapr",
                src=self._recorder.service,
                dst="",
                src_namespace=self._recorder.namespace,
                dst_namespace="",
                verb="POST",
                path=INVOKE_SERVICE,
                status=200,
                grpc_code=grpc_code,
                cause=cause.value,
                context=span.context,
                started_ns=now_ns,
                head_ns=0,
                ended_ns=now_ns,
            )
        )
        self._log.warning(
            "call failed",
            callee="-",
            cause=cause.value,
            by="this proxy",
            verb="POST",
            path=INVOKE_SERVICE,
            grpc_code=grpc_code,
            **call_fields(span.context),
        )
        return span.traceparent
