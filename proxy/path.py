"""One canonical form of a request target, made once at the edge; what has none is refused.

Policy, telemetry and routing see the canonical path. What is forwarded is either the bytes as they came (own surfaces; refused
when decoding once, merging slashes or resolving dots would change the segments) or the canonical form (Dapr's surfaces).
Source: RFC 3986 §3.3, §5.2.4, RFC 9110 §4.2.3; design §9; spec/access-control.md §9.
"""

import re
from urllib.parse import quote

from msgspec import Struct

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?")
_UNWRITABLE = re.compile(
    rb"[^\x21-\x7e]"
)  # never in a target (RFC 3986 §2); HTTP/2 itself does not look (RFC 9113 §8.2.1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LEFTOVER = re.compile(r"%[0-9A-Fa-f]{2}")
# Go's default path encoding leaves these as they are (spec/invocation.md §2.3).
_SAFE = "/-._~!$&'()*+,;=:@"


class BadTargetError(ValueError):
    """A request target without a canonical form. `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Target(Struct, frozen=True):
    """path: canonical, decoded, starting with `/`, trailing slash dropped. query: raw, without `?`. same: forwarding the raw bytes
    names the same segments. absolute: the target's raw path and query begin at `offset` (absolute-form), else 0.
    """

    path: str
    query: bytes
    same: bool
    offset: int
    authority: bytes


def parse(target: bytes) -> Target:
    """The canonical form of a target in origin-form, absolute-form or `*`.

    Raises BadTargetError.
    """
    offset, authority = 0, b""
    if _UNWRITABLE.search(target) is not None:
        raise BadTargetError("the request target holds bytes that must be escaped")
    if target[:1] != b"/":
        if target == b"*":
            return Target("/", b"", same=True, offset=0, authority=b"")
        offset, authority = _absolute(target)
    raw, _, query = target[offset:].partition(b"?")
    if b"#" in target:
        raise BadTargetError("the request target holds a fragment ('#')")
    if _PLAIN.fullmatch(raw) is not None:
        path = raw.decode("ascii")
        return Target(
            path[:-1] if path[-1] == "/" else path, query, same=True, offset=offset, authority=authority
        )
    return _canonical(raw or b"/", query, offset, authority)


def _absolute(target: bytes) -> tuple[int, bytes]:
    lowered = target[:8].lower()
    start = 7 if lowered[:7] == b"http://" else 8 if lowered == b"https://" else 0
    if not start:
        raise BadTargetError("the request target is neither a path nor an http URL")
    slash = target.find(b"/", start)
    query = target.find(b"?", start)
    end = min((i for i in (slash, query) if i >= 0), default=len(target))
    authority = target[start:end]
    if not authority or b"@" in authority:
        raise BadTargetError("the request target's authority is empty or holds user information")
    return end, authority


def _canonical(raw: bytes, query: bytes, offset: int, authority: bytes) -> Target:
    if _BAD_ESCAPE.search(raw):
        raise BadTargetError("the path holds a malformed percent escape")
    lowered = raw.lower()
    if b"%2f" in lowered or b"%5c" in lowered or b"\\" in raw:
        raise BadTargetError("the path holds an encoded slash or a backslash")
    try:
        decoded = _ESCAPE.sub(lambda m: bytes((int(m[1], 16),)), raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadTargetError("the path is not UTF-8") from error
    if _CONTROL.search(decoded) or "?" in decoded or "#" in decoded:
        raise BadTargetError("the path holds a control character, '?' or '#'")
    if _LEFTOVER.search(decoded):
        raise BadTargetError("the path still holds a percent escape after decoding once")
    segments = decoded.split("/")[1:]
    clean = _resolve(segments)
    trimmed = segments[:-1] if segments and segments[-1] == "" else segments
    return Target("/" + "/".join(clean), query, same=clean == trimmed, offset=offset, authority=authority)


def _resolve(segments: list[str]) -> list[str]:
    clean: list[str] = []
    for segment in segments:
        name = segment.partition(";")[0]
        if name in (".", "..") and name != segment:
            raise BadTargetError("the path hides a dot segment behind ';'")
        if segment == "..":
            if clean:
                clean.pop()
        elif segment not in ("", "."):
            clean.append(segment)
    return clean


def encode(path: str) -> bytes:
    """A canonical path as bytes for the wire."""
    return quote(path, safe=_SAFE).encode("ascii")
