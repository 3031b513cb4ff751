"""Answers for all that an engine may meet on the way of a call, in words for whoever called. Pure."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Literal

from msgspec.structs import replace

from proxy import errors
from proxy.contract.head import Headers
from proxy.contract.plan import DETAIL, Cause, Labels, Reply, Surface
from proxy.deciding.plain_text import in_plain_text

End = Literal["app", "peer", "external"]
"""What is at the far end of a call."""


class CauseReplies(Mapping[Cause, Reply]):
    """Answers for all that an engine may meet on the way to `who`, each made when asked for: a Plan that holds all is 13 KB.

    `callee`: its app-id, for Dapr's words. `end`: what it is. `hint`: what may be amiss where
    it breaks the call off, or can't take it.
    """

    __slots__ = ("_callee", "_end", "_extra", "_hint", "_labels", "_surface", "_wait_s", "_who")

    def __init__(
        self,
        labels: Labels,
        surface: Surface,
        who: str,
        callee: str,
        *,
        end: End,
        extra: Headers = (),
        hint: str = "",
    ) -> None:
        self._hint = hint
        self._wait_s = 0
        self._labels = labels
        self._surface = surface
        self._who = who
        self._callee = callee
        self._end = end
        self._extra = extra

    def adding(self, headers: Headers) -> "CauseReplies":
        """The same answers with more headers."""
        made = copy(self)
        made._extra = (*self._extra, *headers)
        return made

    def labelled(self, labels: Labels) -> "CauseReplies":
        """The same answers with other labels."""
        made = copy(self)
        made._labels = labels
        return made

    def limiting(self, wait_s: int) -> "CauseReplies":
        """The same answers, of which those of a pipeline's rate limit name the seconds to wait at most, in plain text as daprd's; 0: it
        has none.
        """
        made = copy(self)
        made._wait_s = wait_s
        return made

    def __getitem__(self, cause: Cause) -> Reply:
        if cause in _BREAKER and self._surface == "dapr":
            text = _BREAKER[cause]  # daprd's, word for word
            return errors.reply(
                cause, self._labels, text, surface="dapr", callee=self._callee, extra=self._extra
            )
        shown = _APP_CAUSES.get(cause, cause) if self._end == "app" else cause
        text = _TEXTS[self._end].get(cause, "{who}: {detail}").format(who=self._who, detail=DETAIL)
        if cause is Cause.RATE and self._wait_s:
            return self._limited(text)
        if self._hint and cause in _BROKEN_OFF:
            text += self._hint
        return errors.reply(
            shown, self._labels, text, surface=self._surface, callee=self._callee, extra=self._extra
        )

    def _limited(self, text: str) -> Reply:
        made = errors.reply(Cause.RATE, self._labels, text, surface=self._surface, extra=self._extra)
        found = in_plain_text(made, text)
        headers = (header for header in found.headers if header[0] != b"retry-after")
        return replace(found, headers=(*headers, (b"retry-after", b"%d" % self._wait_s)))

    def __iter__(self) -> Iterator[Cause]:
        return iter(Cause)

    def __len__(self) -> int:
        return len(Cause)


_BROKEN_OFF = frozenset({Cause.RESET_EARLY, Cause.INVALID_ANSWER, Cause.UNSUPPORTED})
_APP_CAUSES = {Cause.CONNECT: Cause.APP_DOWN, Cause.NO_ENDPOINT: Cause.APP_DOWN}
_BREAKER = {Cause.BREAKER: "circuit breaker is open", Cause.PROBING: "too many requests"}
_SHARED = {
    Cause.BREAKER: "{who} failed this method too often, so its circuit breaker is open: {detail}",
    Cause.PROBING: "the circuit breaker of this method of {who} is half-open: {detail}",
    Cause.TIMEOUT: "{who} did not answer in time: {detail}",
    Cause.TOO_LARGE: "the request to {who} is too large: {detail}; --max-body-size sets the limit",
    Cause.RATE: "too many requests to {who} {detail}",
    Cause.SHED: "{who} is busy: {detail}",
    Cause.DENIED: "access to {who} is denied by {detail}",
    Cause.AUTHORIZER: "the call to {who} could not be authorized, and was not made: {detail}",
    Cause.UNSUPPORTED: "the call can't be carried to {who}: {detail}",
    Cause.REFUSED: "{who} refused the call: {detail}",
    Cause.INVALID_ANSWER: "{who} gave an answer that is not valid HTTP: {detail}; is --app-protocol right?",
}
_AT_PEER = {
    **_SHARED,
    Cause.SHED: "calls to {who} are limited: {detail}; concurrency and throttle of a Traffic say how many are sent",
    Cause.NO_ENDPOINT: "no endpoint of {who} is known: {detail}",
    Cause.CONNECT: "could not reach the proxy of {who}: {detail}; is it running, and its peer port open?",
    Cause.TLS_IDENTITY: (
        "mutual TLS with the proxy of {who} failed: {detail}; is it on at both ends (a daprd needs --enable-mtls), "
        "with the same sentry?"
    ),
    Cause.RESET_EARLY: "the call to {who} broke before an answer: {detail}",
    Cause.RESET_LATE: "the answer of {who} broke off: {detail}",
    Cause.NOT_READY: "the call to {who} was not sent: {detail}; `postern status` tells why",
}
_AT_APP = {
    **_SHARED,
    Cause.SHED: (
        "{who} is busy: {detail}; --app-max-concurrency, and spec.inbound of a Traffic, say how many calls it takes at once"
    ),
    Cause.NO_ENDPOINT: "{who}: its proxy knows no address of the app: {detail}",
    Cause.CONNECT: "the app {who} does not accept connections: {detail}; is it running, and are --app-port and --app-protocol right?",
    Cause.UNSUPPORTED: "the call can't be carried to {who}: {detail}; is --app-protocol right?",
    Cause.TLS_IDENTITY: "TLS with the app {who} failed: {detail}; this proxy shows an app no certificate",
    Cause.RESET_EARLY: "the connection to the app {who} ended before an answer: {detail}",
    Cause.RESET_LATE: "the app {who} broke off its answer: {detail}",
}
_EXTERNAL = {
    **_SHARED,
    Cause.SHED: "calls to {who} are limited: {detail}; concurrency and throttle of a Traffic say how many are sent",
    Cause.NO_ENDPOINT: "no address of {who} is known: {detail}",
    Cause.CONNECT: "could not connect to {who}: {detail}; is it up, and reachable from this host?",
    Cause.TLS_IDENTITY: (
        "TLS with {who} failed: {detail}; spec.clientTLS of an HTTPEndpoint sets which roots are trusted (the system's) "
        "and which certificate is shown (none)"
    ),
    Cause.INVALID_ANSWER: "{who} gave an answer that is not valid HTTP/1.1: {detail}",
    Cause.RESET_EARLY: "the connection to {who} ended before an answer: {detail}",
    Cause.RESET_LATE: "{who} broke off its answer: {detail}",
}
_TEXTS: Mapping[End, Mapping[Cause, str]] = {"app": _AT_APP, "peer": _AT_PEER, "external": _EXTERNAL}
