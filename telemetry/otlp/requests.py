"""The messages that export one signal each, and what they hold. Pure."""

from collections.abc import Mapping
from typing import Final

from telemetry.otlp.messages_pb2 import LogsRequest, Metric, MetricsRequest, TracesRequest
from telemetry.otlp.target import Signal

Request = TracesRequest | MetricsRequest | LogsRequest
KINDS: Final[Mapping[Signal, type[Request]]] = {
    "traces": TracesRequest,
    "metrics": MetricsRequest,
    "logs": LogsRequest,
}


def item_count(request: Request) -> int:
    """How many spans, data points or log records it holds."""
    match request:
        case TracesRequest():
            return sum(len(scope.spans) for part in request.resource_spans for scope in part.scope_spans)
        case MetricsRequest():
            return sum(
                _points(metric)
                for part in request.resource_metrics
                for scope in part.scope_metrics
                for metric in scope.metrics
            )
        case LogsRequest():
            return sum(len(scope.log_records) for part in request.resource_logs for scope in part.scope_logs)


def _points(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0
