"""The meters as Prometheus text or OpenMetrics, written by prometheus_client from a registry of their own.

Imported at the first scrape only. Adds what prometheus_client knows about the process: CPU, memory, file descriptors.
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from telemetry.series import AnyFamily, Counter, Distribution, Gauge, Histogram


def render(families: Sequence[AnyFamily], accept: str) -> tuple[bytes, str]:
    """(body, content type) for these families; metrics without a series are left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    body = encode(registry)
    # OpenMetrics knows counters by the suffix `_total`, which Dapr's older ones lack: "unknown" there. Prometheus's text format takes them.
    for family in families:
        if isinstance(family, Counter) and not family.name.endswith("_total"):
            name = family.name.encode()
            body = body.replace(b"# TYPE %b untyped\n" % name, b"# TYPE %b counter\n" % name)
    return body, content_type


class _Families(Collector):
    def __init__(self, families: Iterable[AnyFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            if family.slots:
                yield _metric(family)


def _metric(family: AnyFamily) -> Metric:
    if isinstance(family, Histogram):
        metric = Metric(family.name, family.help, "histogram")
        # A copy: the loop's thread may add a label set while this one writes.
        for values, slot in list(family.slots.items()):
            _add_distribution(metric, dict(zip(family.labels, values, strict=True)), slot)
        return metric
    name, kind = family.name, "gauge" if isinstance(family, Gauge) else "unknown"
    if isinstance(family, Counter) and name.endswith("_total"):
        name, kind = name.removesuffix("_total"), "counter"
    metric = Metric(name, family.help, kind)
    for values, value in list(family.slots.items()):
        metric.add_sample(family.name, dict(zip(family.labels, values, strict=True)), value.value)
    return metric


def _add_distribution(metric: Metric, labels: dict[str, str], slot: Distribution) -> None:
    counts = slot.cumulative()
    for bucket, bound in enumerate((*slot.bounds, float("inf"))):
        metric.add_sample(
            f"{metric.name}_bucket",
            {**labels, "le": "+Inf" if bound == float("inf") else str(float(bound))},
            counts[bucket],
            exemplar=_exemplar(slot, bucket),
        )
    metric.add_sample(f"{metric.name}_count", labels, counts[-1])
    metric.add_sample(f"{metric.name}_sum", labels, slot.sum)


def _exemplar(slot: Distribution, bucket: int) -> Exemplar | None:
    found = slot.exemplars.get(bucket)
    if found is None:
        return None
    context, value, at_s = found
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    return Exemplar(ids, value, at_s)
