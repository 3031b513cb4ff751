"""The exchange's side of both wire ends, writing down what it hears."""

from collections.abc import Callable

from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.streams import Downstream, RawHead, UpstreamConnection


class HeardRequest:
    """One request as a downstream end told it. `acking`: credit is given back at once."""

    def __init__(self, down: Downstream, head: RawHead, *, acking: bool = True) -> None:
        self.down = down
        self.head = head
        self.body = b""
        self.trailers: Headers | None = None
        self.gone: str | None = None
        self.drained = 0
        self._acking = acking

    @property
    def ended(self) -> bool:
        """Whether the request is complete."""
        return self.trailers is not None

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        assert not self.ended
        self.body += data
        if self._acking:
            self.down.ack(len(data))

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        assert not self.ended
        self.trailers = trailers

    def request_gone(self, detail: str) -> None:
        """See RequestEvents."""
        assert self.gone is None
        self.gone = detail

    def response_drained(self, count: int) -> None:
        """See RequestEvents."""
        self.drained += count


class Requests:
    """An AcceptCall that keeps the requests; `then` may answer one at once."""

    def __init__(self, then: Callable[[HeardRequest], None] | None = None, *, acking: bool = True) -> None:
        self.heard: list[HeardRequest] = []
        self._then = then
        self._acking = acking

    def __call__(self, down: Downstream, head: RawHead) -> HeardRequest:
        request = HeardRequest(down, head, acking=self._acking)
        self.heard.append(request)
        if self._then is not None:
            self._then(request)
        return request

    @property
    def last(self) -> HeardRequest:
        """The newest."""
        return self.heard[-1]


class HeardResponse:
    """One response as an upstream end told it."""

    def __init__(self) -> None:
        self.informs: list[tuple[int, Headers]] = []
        self.status = 0
        self.headers: Headers = ()
        self.body = b""
        self.trailers: Headers | None = None
        self.lost: Cause | None = None
        self.detail = ""
        self.drained = 0

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return self.trailers is not None

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents."""
        self._still_open()
        self.informs.append((status, headers))

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        self._still_open()
        assert not self.status
        self.status = status
        self.headers = headers
        if end:
            self.trailers = ()

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        self._still_open()
        assert self.status
        self.body += data

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        self._still_open()
        self.trailers = trailers

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._still_open()
        self.lost = cause
        self.detail = detail

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""
        self.drained += count

    def _still_open(self) -> None:
        assert self.lost is None, "an event after response_lost"
        assert self.trailers is None, "an event after the end"


class Owner:
    """A ConnectionOwner that counts."""

    def __init__(self) -> None:
        self.offers = 0
        self.closed: str | None = None

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""
        self.offers += 1

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""
        assert self.closed is None
        self.closed = detail
