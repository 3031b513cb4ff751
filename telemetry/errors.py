"""What can go wrong in telemetry. None of it may ever fail a call: telemetry fails open."""


class TelemetryError(Exception):
    """Base of this room's errors."""


class ExporterConfigError(TelemetryError):
    """An exporter cannot be built from what was configured; raised at start, never later."""

    def __init__(self, exporter: str, problem: str) -> None:
        super().__init__(f"{exporter}: {problem}")
        self.exporter = exporter
        self.problem = problem


class TailCallableError(TelemetryError):
    """What is to say which spans are kept can't be loaded; raised when it is loaded, never by a call."""

    def __init__(self, reference: str, problem: str) -> None:
        super().__init__(f"{reference} can't be loaded: {problem}")
        self.reference = reference
        self.problem = problem


class ExportError(TelemetryError):
    """A batch was not taken. `retryable` says whether the same batch may be sent again."""

    def __init__(self, problem: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class PartialExportError(ExportError):
    """The collector took a batch but for some of it, which it does not want at all."""

    def __init__(self, rejected: int, problem: str) -> None:
        super().__init__(
            f"the collector rejected {rejected}: {problem or 'no reason given'}", retryable=False
        )
        self.rejected = rejected


class MetricError(TelemetryError):
    """A metric was asked for with other labels than it has, or declared twice."""

    def __init__(self, metric: str, problem: str) -> None:
        super().__init__(f"metric {metric}: {problem}")
        self.metric = metric


class LogConfigError(TelemetryError):
    """Logging was configured with an unknown level or a file that can't be written."""


class WebProxyError(TelemetryError):
    """The environment names an HTTP proxy that can't be used. Not telemetry's alone: see `web_proxies`."""
