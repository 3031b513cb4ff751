"""An app on OpenTelemetry's SDK.

`spans.py grpc|http URL COUNT` exports spans of the service `python-app`, in one trace, whose id it prints.
"""

import importlib
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def main(protocol: str, url: str, count: int) -> None:
    """Make the spans, and wait for them to be taken."""
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter")
    endpoint = url if protocol == "grpc" else f"{url}/v1/traces"
    options = {"insecure": True} if protocol == "grpc" else {}
    exporter = module.OTLPSpanExporter(endpoint=endpoint, **options)
    provider = TracerProvider(resource=Resource({"service.name": "python-app"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("stock")
    with tracer.start_as_current_span("root") as root:
        for number in range(1, count):
            with tracer.start_as_current_span(f"step {number}", attributes={"number": number}):
                pass
    sys.stdout.write(f"{root.get_span_context().trace_id:032x}\n")
    sys.stdout.flush()
    provider.force_flush()
    provider.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
