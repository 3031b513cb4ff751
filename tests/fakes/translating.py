"""Both ends of a call that is translated, writing down what they are told."""

from dataclasses import dataclass

from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.streams import RawHead, ResponseEvents


@dataclass(slots=True)
class Down:
    """A Downstream."""

    status: int = 0
    headers: Headers = ()
    body: bytes = b""
    trailers: Headers | None = None
    aborted: Cause | None = None
    acked: int = 0
    sends: int = 0
    is_over: bool = False

    def inform(self, status: int, headers: Headers) -> None:
        """See Downstream."""

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        """See Downstream."""
        self.status, self.headers, self.is_over = status, headers, end

    def send(self, data: bytes) -> None:
        """See Downstream."""
        assert not self.is_over
        self.body += data
        self.sends += 1

    def finish(self, trailers: Headers) -> None:
        """See Downstream."""
        assert not self.is_over
        self.trailers, self.is_over = trailers, True

    def abort(self, cause: Cause) -> None:
        """See Downstream."""
        self.aborted, self.is_over = cause, True

    def ack(self, count: int) -> None:
        """See Downstream."""
        self.acked += count

    def get(self, name: bytes) -> bytes:
        """A field of the head, or of the trailers."""
        return dict((*self.headers, *(self.trailers or ()))).get(name, b"")


@dataclass(slots=True)
class Up:
    """An UpstreamCall."""

    head: RawHead | None = None
    body: bytes = b""
    ended: bool = False
    aborted: bool = False
    acked: int = 0
    sends: int = 0

    def start(self, head: RawHead, *, end: bool) -> None:
        """See UpstreamCall."""
        self.head, self.ended = head, end

    def send(self, data: bytes) -> None:
        """See UpstreamCall."""
        assert not self.ended
        self.body += data
        self.sends += 1

    def finish(self, trailers: Headers) -> None:
        """See UpstreamCall."""
        assert not self.ended
        self.ended = True

    def abort(self) -> None:
        """See UpstreamCall."""
        self.aborted = True

    def ack(self, count: int) -> None:
        """See UpstreamCall."""
        self.acked += count


class Way:
    """A Way whose calls go nowhere."""

    def __init__(self) -> None:
        self.calls: list[Up] = []

    def open(self, events: ResponseEvents) -> Up:
        """See Way."""
        self.calls.append(Up())
        return self.calls[-1]
