"""What arrived: a request's head, as engines read it and deciders see it. Frozen."""

from typing import Final, Literal

from msgspec import Struct

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]
Framing = Literal["none", "length", "stream"]


FROM_DAPRD: Final = "daprd-in"  # the cluster of the translator, and the listener where it calls back
MAX_ADDRESS: Final = 64
#: Tells the translator by which header an endpoint is chosen.
HASH_HEADER: Final = b"postern-hash-header"
#: Fields of calls with envelopes, which have meanings of their own there.
OF_ENVELOPES: Final = frozenset({b"content-type", b"te", b"traceparent", b"grpc-trace-bin", b"grpc-timeout"})

Form = Literal["sent", "whole", "method"]
"""Which path an app is sent: as it came, cleaned (Dapr's surfaces), or cleaned from what follows `/method` on (Dapr's path form)."""


class RequestHead(Struct, frozen=True):
    """What arrived. `target` as it came; `path` as sent, of gRPC the whole target; `query` raw without `?`.

    protocol: http1, http2, grpc or websocket (an HTTP/1.1 Upgrade and an RFC 8441 CONNECT alike, method then GET). `headers` lower-case,
    in order, without pseudo-headers. `peer`: SPIFFE id proven by mutual TLS, else None.
    """

    listener: str
    protocol: Literal["http1", "http2", "grpc", "websocket"]
    framing: Framing
    method: str
    authority: str
    target: bytes
    path: str
    query: bytes
    headers: Headers
    peer: str | None = None
    peer_address: str = ""
    length: int | None = None
    form: Literal["origin", "absolute"] = "origin"

    @property
    def who(self) -> str:
        """Who calls, as gates tell callers apart: the proven id, else the address, which is empty on a local socket.

        Of a daprd's call that comes back from its translator: the daprd's id, else the address that it says, as daprds count callers.
        """
        if self.listener == FROM_DAPRD:
            return self._daprd()
        return self.peer or self.peer_address

    def _daprd(self) -> str:
        proven = self.get(b"postern-peer")
        if proven is not None:
            return proven.decode("latin-1")
        said = next((data for key, data in reversed(self.headers) if key == b"x-forwarded-for"), b"")
        last = said.rpartition(b",")[2].strip().decode("latin-1")
        return last if len(last) <= MAX_ADDRESS else ""

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header, or None."""
        for key, data in self.headers:
            if key == name:
                return data
        return None
