"""What authorizers answer, and what of that may be done. Pure.

An authorizer never says who calls whom, nor how messages are framed: fields of that kind are left out, and said once to be so.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from proxy.contract.head import Header, Headers
from proxy.contract.plan import DETAIL, TRACE_ID, Edit, Edits, Op
from proxy.wire.edits import HOP_BY_HOP, spelled

MAX_FIELDS: Final = 64  # of an answer
MAX_FIELD_BYTES: Final = 16_384  # of all of them
MAX_BODY_BYTES: Final = 65_536  # of a refusal

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_FRAMING: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_CONTENT: Final = frozenset({b"content-type", b"content-encoding"})
_IDENTITY: Final = frozenset(
    {
        *(b"dapr-app-id", b"dapr-callee-app-id", b"destination-app-id", b"dapr-api-token"),
        *(b"x-forwarded-client-cert", b"traceparent", b"tracestate", b"grpc-trace-bin"),
    }
)
_PREFIXES: Final = (b":", b"dapr-caller-", b"postern-", b"grpc-")
_OF_ANSWERS: Final = _FRAMING | {b"traceparent", b"date"}
_OF_ANSWERS_PREFIXES: Final = (b":", b"postern-", b"grpc-")
Where = Literal["request", "answer", "refusal"]


class AuthorizerError(Exception):
    """No answer that counts, and why. result: as metrics count it."""

    def __init__(self, reason: str, result: Literal["error", "timeout", "busy"] = "error") -> None:
        super().__init__(reason)
        self.result: Final = result


class Allowed(NamedTuple):
    """The call goes on. request, reply: see `proxy.contract.authorizing.Granted`."""

    request: Edits = ()
    reply: Edits = ()


class Denied(NamedTuple):
    """It is refused, with this answer; a body that is empty says nothing to people."""

    status: int = 403
    headers: Headers = ()
    body: bytes = b""


Verdict = Allowed | Denied
Ignored = Callable[[bytes, Where], None]
"""Hears of a field that is left out."""


class Sieve:
    """Lets through what of an answer may be done, up to a bound on it. Mutable state: what was let through so far, in fields and bytes."""

    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._fields = self._bytes = 0

    def request(self, op: Literal[Op.SET, Op.ADD, Op.REMOVE], name: bytes, value: bytes = b"") -> Edits:
        """The edit of the request that is asked for, if it may be. Raises: AuthorizerError."""
        name = name.lower()
        return self._edit(op, name, value, "request", is_ours=_is_ours(name))

    def reply(self, op: Literal[Op.SET, Op.ADD], name: bytes, value: bytes) -> Edits:
        """The same of the answer."""
        name = name.lower()
        is_ours = name in _OF_ANSWERS or name in _CONTENT or name.startswith(_OF_ANSWERS_PREFIXES)
        return self._edit(op, name, value, "answer", is_ours=is_ours)

    def _edit(self, op: Op, name: bytes, value: bytes, where: Where, *, is_ours: bool) -> Edits:
        if is_ours:
            self._ignored(name, where)
            return ()
        checked = self._checked(name, value)
        return (Edit(op=op, name=checked[0], data=checked[1]),)

    def refusal(self, status: int, headers: Iterable[Header], body: bytes) -> Denied:
        """A refusal as its caller hears it; a body that is not text, such as a compressed one, is left out. Raises: AuthorizerError."""
        kept: list[Header] = []
        for written, value in headers:
            name = written.lower()
            if name in _OF_ANSWERS or name.startswith(_OF_ANSWERS_PREFIXES):
                if name not in _FRAMING and name != b"date":
                    self._ignored(name, "refusal")
                continue
            kept.append(self._checked(name, value))
        status = status if 200 <= status <= 599 else 403
        is_whole = len(body) <= MAX_BODY_BYTES or not any(name == b"content-encoding" for name, _ in kept)
        # `DETAIL` and `TRACE_ID`, which text never holds, are where engines put their own words.
        if status in (204, 304) or not is_whole or any(mark.encode() in body for mark in (DETAIL, TRACE_ID)):
            return Denied(status, tuple(field for field in kept if field[0] not in _CONTENT))
        return Denied(status, tuple(kept), body[:MAX_BODY_BYTES])

    def _checked(self, name: bytes, value: bytes) -> Header:
        value = value.strip(b" \t")
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise AuthorizerError(f"its answer has a field that can't be sent: {name[:100]!r}")
        self._fields += 1
        self._bytes += len(name) + len(value)
        if self._fields > MAX_FIELDS or self._bytes > MAX_FIELD_BYTES:
            raise AuthorizerError(
                f"its answer has more than {MAX_FIELDS} fields, or {MAX_FIELD_BYTES} bytes of them"
            )
        return name, value


def _is_ours(name: bytes) -> bool:
    """Whether an authorizer has no say about a field of the request."""
    known = spelled(name)
    return known in _FRAMING or known in _CONTENT or known in _IDENTITY or known.startswith(_PREFIXES)


def withheld(names: Iterable[str]) -> Edits:
    """Of fields that an authorizer alone gives to apps: those that it does not give, the caller does not, either."""
    return tuple(
        Edit(op=Op.REMOVE, name=name) for name in map(str.encode, sorted(names)) if not _is_ours(name)
    )


def together(verdicts: Iterable[Allowed]) -> Allowed:
    """What several authorizers changed: of one field, the last that sets or removes it counts."""
    made = Allowed()
    for verdict in verdicts:
        made = Allowed(_over(made.request, verdict.request), _over(made.reply, verdict.reply))
    return made


def _over(before: Edits, after: Edits) -> Edits:
    settled = {edit.name for edit in after if edit.op is not Op.ADD}
    return (*(edit for edit in before if edit.name not in settled), *after)
