"""What is measured: each case is one kind of call and how many of them are in flight."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Protocol = Literal["grpc", "http1"]

GRPC_SERVICE: Final = "bench.Echo"
GRPC_PATH: Final = f"/{GRPC_SERVICE}/Unary"
GRPC_MESSAGE: Final = b"\x00\x00\x00\x00\x07\x0a\x05hello"
HTTP_PATH: Final = "/items/42"
HTTP_BODY: Final = b'{"id": 42, "name": "walnut desk", "stock": 7}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row's shape. `streams` is calls in flight per connection; HTTP/1.1 has one."""

    name: str
    protocol: Protocol
    connections: int
    streams: int = 1

    @property
    def app_id(self) -> str:
        """The callee's app-id in the sidecar meshes."""
        return f"bench-{self.protocol}"

    @property
    def path(self) -> str:
        """The request target."""
        return GRPC_PATH if self.protocol == "grpc" else HTTP_PATH

    @property
    def answer(self) -> bytes:
        """The body of a right answer."""
        return GRPC_MESSAGE if self.protocol == "grpc" else HTTP_BODY

    def load_flags(self, message: Path) -> list[str]:
        """How h2load is told to make these calls; `message` holds the framed gRPC request."""
        flags = ["-c", str(self.connections), "-m", str(self.streams), "-H", f"dapr-app-id: {self.app_id}"]
        if self.protocol == "http1":
            return [*flags, "--h1"]
        return [*flags, "-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"]


CASES: Final = (
    Case(name="grpc-unary", protocol="grpc", connections=12, streams=8),
    Case(name="grpc-one", protocol="grpc", connections=1),
    Case(name="http1", protocol="http1", connections=12),
    Case(name="http1-one", protocol="http1", connections=1),
)
