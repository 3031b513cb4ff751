"""What is measured: each case is one kind of call and how many of them are in flight."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

Protocol = Literal["grpc", "http1"]

GRPC_SERVICE: Final = "bench.Echo"
GRPC_PATH: Final = f"/{GRPC_SERVICE}/Unary"
GRPC_MESSAGE: Final = b"\x00\x00\x00\x00\x07\x0a\x05hello"
HTTP_PATH: Final = "/items/42"
HTTP_BODY: Final = b'{"id": 42, "name": "walnut desk", "stock": 7}\n'
RULES: Final = 100  # path rules at the callee of `paths`
PEERS: Final = 200
MIB: Final = 2**20
NATIVE: Final = "postern-native"
ALIKE: Final = "bench-alike"  # an app of three instances
ONE_SLOW: Final = "bench-one-slow"  # another one, one of whose instances is slow
SCRAPED: Final = f"{NATIVE}-scraped"
VARIANTS: Final = tuple(
    f"{NATIVE}-{of}" for of in ("traced", "untraced", "sampled", "logged", "scraped", "guarded")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row's shape. `streams` is calls in flight per connection; HTTP/1.1 has one.

    Cases of one group are measured in turn. `targets`: on these alone; none: on all that speak the protocol. A window ends after so many
    `calls`, or else by time. `paths`, `peers`: that many different ones are called in turn, by a generator of our own (`is_own`).
    `size`, `is_upload`: a body each way. `idle`: connections of that protocol that do nothing meanwhile.
    """

    name: str
    protocol: Protocol
    connections: int
    streams: int = 1
    group: str = ""
    targets: tuple[str, ...] = ()
    callee: str = ""
    calls: int | None = None
    rounds: int | None = None
    is_own: bool = False
    paths: int = 0
    peers: int = 0
    size: int = 0
    is_upload: bool = False
    idle: int = 0
    idle_protocol: Protocol = "http1"
    is_restless: bool = False

    @property
    def is_for_memory(self) -> bool:
        """Whether it tells what so many calls leave behind: then none may be made anew."""
        return self.group == "million"

    @property
    def app_id(self) -> str:
        """The callee's app-id in the sidecar meshes; of many peers, the first."""
        return self.callee or f"bench-{self.protocol}"

    @property
    def app_ids(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(peer_id(number) for number in range(self.peers)) or (self.app_id,)

    @property
    def path(self) -> str:
        """The request target."""
        if self.size:
            return "/bytes/in" if self.is_upload else f"/bytes/{self.size}"
        return GRPC_PATH if self.protocol == "grpc" else HTTP_PATH

    @property
    def answer_bytes(self) -> int:
        """The least that a right answer's body holds."""
        if self.size and not self.is_upload:
            return self.size
        return len(GRPC_MESSAGE if self.protocol == "grpc" else HTTP_BODY)

    def load_flags(self, message: Path) -> list[str]:
        """How h2load is told to make these calls; `message` holds the framed gRPC request, or the body to upload."""
        flags = ["-c", str(self.connections), "-m", str(self.streams), "-H", f"dapr-app-id: {self.app_id}"]
        if self.protocol == "http1":
            return [*flags, "--h1", *(("-d", str(message)) if self.is_upload else ())]
        return [*flags, "-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"]


def peer_id(number: int) -> str:
    """The app-id of one of many peers."""
    return f"peer-{number:03d}"


_BODIES: Final = tuple(
    Case(
        name=f"{'up' if is_upload else 'down'}-{size // MIB}m",
        group="bodies",
        protocol="http1",
        connections=connections,
        calls=calls,
        targets=("direct", "envoy", NATIVE),
        size=size,
        is_upload=is_upload,
    )
    for size, connections, calls in ((MIB, 8, 1_500), (64 * MIB, 2, 30))
    for is_upload in (False, True)
)
_MILLION: Final = 10  # windows
_UNARY: Final = Case(name="grpc-unary", protocol="grpc", connections=12, streams=8)
_NATIVE: Final = replace(_UNARY, targets=(NATIVE,))
_FIXED_PATH: Final = replace(
    _UNARY,
    name="fixed-path",
    group="million",
    targets=("envoy", NATIVE),
    calls=100_000,
    rounds=_MILLION,
    is_own=True,
)
_NO_IDLE: Final = replace(_NATIVE, name="no-idle-200", group="idle", connections=200)
CASES: Final = (
    _UNARY,
    Case(name="grpc-one", group="one", protocol="grpc", connections=1),
    Case(
        name="grpc-one-restless",
        group="one",
        protocol="grpc",
        connections=1,
        targets=(NATIVE,),
        is_restless=True,
    ),
    Case(name="http1", protocol="http1", connections=12),
    Case(name="http1-one", protocol="http1", connections=1),
    _FIXED_PATH,
    replace(_FIXED_PATH, name="paths", callee="bench-paths", targets=(NATIVE,), paths=_MILLION * 100_000),
    *(
        replace(
            _NATIVE,
            name=name,
            group="peers",
            callee=peer_id(0),
            targets=("envoy", NATIVE),
            calls=50_000,
            is_own=True,
            peers=peers,
        )
        for name, peers in (("one-peer", 1), ("peers", PEERS))
    ),
    replace(_NATIVE, name="no-idle", group="idle"),
    _NO_IDLE,
    replace(_NO_IDLE, name="idle-http1", idle=5_000),
    replace(_NO_IDLE, name="idle-grpc", idle=5_000, idle_protocol="grpc"),
    *_BODIES,
    *(
        Case(
            name=name,
            group="instances",
            protocol="http1",
            connections=12,
            targets=("envoy", "envoy-least-request", NATIVE),
            callee=callee,
        )
        for name, callee in (("three-alike", ALIKE), ("one-slow", ONE_SLOW))
    ),
)
