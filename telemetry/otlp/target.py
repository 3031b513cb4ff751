"""OTLP's signals, and where they go, as it was configured: values only, light to import."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

Signal = Literal["traces", "metrics", "logs"]
_COLLECTOR: Final = "opentelemetry.proto.collector"
#: The gRPC services that take requests.
SERVICES: Final[Mapping[str, Signal]] = {
    f"{_COLLECTOR}.trace.v1.TraceService": "traces",
    f"{_COLLECTOR}.metrics.v1.MetricsService": "metrics",
    f"{_COLLECTOR}.logs.v1.LogsService": "logs",
}
#: The paths that requests are posted to.
PATHS: Final[Mapping[str, Signal]] = {f"/v1/{signal}": signal for signal in SERVICES.values()}


class OtlpTarget(Struct, frozen=True, kw_only=True):
    """A collector for one signal.

    port 0: that of the protocol. path: of HTTP, empty for the usual one. certificate_pem: roots in the place of the system's.
    client: paths of the certificate and the key, in PEM, that a collector is shown over TLS.
    """

    host: str
    port: int = 0
    protocol: Literal["grpc", "http"]
    path: str = ""
    is_json: bool = False
    is_secure: bool = True
    is_compressed: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    certificate_pem: bytes = b""
    client: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"OtlpTarget({self.protocol}, {self.address})"  # headers hold keys

    @property
    def address(self) -> str:
        """`host:port`. Without a port it is 443 over TLS, as a vendor's URL means, else that of OTLP."""
        port = self.port or (443 if self.is_secure else 4317 if self.protocol == "grpc" else 4318)
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine by its name."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def url(self, signal: Signal) -> str:
        """The URL of a signal over HTTP."""
        return f"{'https' if self.is_secure else 'http'}://{self.address}{self.path or f'/v1/{signal}'}"
