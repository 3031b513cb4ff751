"""Request targets: which are refused, and the forms of their paths.

A path travels as it was sent, whatever RFC 3986 lets it hold; how an app may read it is judged by
`policies/rules/path_readings.py`. On Dapr's surfaces it is cleaned first, as Dapr cleans it, with its escapes as sent.
Source: RFC 3986 §2.1, §3.3, §5.2.4, RFC 9110 §4.2.3.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from proxy.contract.head import Form

MAX_APP_BYTES = 256  # of an app-id in the path form, as sent
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL_ESCAPE = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
_UNWRITABLE = re.compile(
    rb"[^\x21-\x7e]"
)  # never in a target (RFC 3986 §2); HTTP/2 itself does not look (RFC 9113 §8.2.1)
_ESCAPED_DOT = re.compile("%2e", re.IGNORECASE)
_SEPARATOR = re.compile(r"/|\\|%2f|%5c", re.IGNORECASE)
_UNCLEAN = re.compile(r"//|/\.\.?(?:/|\Z)")
_INVOKE = re.compile(r"/+v1\.0/+invoke/+")
_NOT_READABLE = re.compile(r"[\x00-\x1f\x7f-\x9f?#%;\\\u2028\u2029]|//|/\.\.?(?:/|\Z)")
# Go's default path encoding leaves these as they are; escapes stay what they are.
_SAFE = "/-._~!$&'()*+,;=:@%"


class BadTargetError(ValueError):
    """An invalid request target. `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Target(Struct, frozen=True):
    """path: as sent, starting with `/`. query: raw, without `?`. absolute-form: path and query begin at `offset`, else 0."""

    path: str
    query: bytes
    offset: int
    authority: bytes


def parse(target: bytes) -> Target:
    """The parts of a target in origin-form, absolute-form or `*`, whose path is `/`.

    Raises BadTargetError.
    """
    offset, authority = 0, b""
    if _UNWRITABLE.search(target) is not None:
        raise BadTargetError("the request target holds bytes that must be escaped")
    if target[:1] != b"/":
        if target == b"*":
            return Target("/", b"", offset=0, authority=b"")
        offset, authority = _absolute(target)
    path, _, query = target[offset:].partition(b"?")
    if b"#" in target:
        raise BadTargetError("the request target holds a fragment ('#')")
    if b"%" in path:
        if _BAD_ESCAPE.search(path) is not None:
            raise BadTargetError("the path holds a malformed percent escape")
        if _CONTROL_ESCAPE.search(path) is not None:
            raise BadTargetError("the path holds an escaped control character")
    return Target(path.decode("ascii") or "/", query, offset=offset, authority=authority)


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


def invoked(path: str) -> tuple[str, str] | None:
    """App-id and method of Dapr's path form, both as sent: cut at the first `/method/`. None for any other path."""
    start = _INVOKE.match(path)
    if start is None:
        return None
    rest = path[start.end() :]
    end = rest.find("/method/")
    if not 0 < end <= MAX_APP_BYTES:
        return None
    return rest[:end], rest[end + len("/method") :]


def clean(path: str) -> str:
    """Without empty and dot segments and the trailing slash; only plain dots count (RFC 3986 §5.2.4)."""
    if _UNCLEAN.search(path) is None:
        return path.rstrip("/") or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


def as_forwarded(path: str, form: Form) -> str:
    """The path that the app finds; a trailing slash stays."""
    if form == "sent":
        return path
    if form == "method":
        split = invoked(path)
        path = split[1] if split is not None else path
    found = quote(clean(path), safe=_SAFE)
    return found + "/" if path.endswith("/") and found != "/" else found


def below(base: str, path: str) -> str:
    """A path that is sent on, behind `base`. It doesn't lead out of it: dot segments are resolved first, however they are spelt.

    Source: RFC 3986 §6.2.2.2 (`%2e` is a dot); servers that take `%2F`, `%5C` or `..;` for a separator or a parent are known.
    """
    path = _ESCAPED_DOT.sub(".", path)
    segments = _SEPARATOR.split(path)
    plain = [segment.partition(";")[0] for segment in segments]
    if "." in plain or ".." in plain:
        pairs = zip(plain, segments, strict=True)
        path = "/".join(short if short in (".", "..") else whole for short, whole in pairs)
    return base + as_forwarded(path, "whole")


def readable(path: str) -> str:
    """A path for people, metrics and traces: clean, and decoded where that can't be taken for anything else."""
    found = clean(path)
    if "%" not in found:
        return found
    try:
        decoded = unquote_to_bytes(found).decode()
    except UnicodeDecodeError:
        return found
    is_other = decoded.count("/") != found.count("/") or _NOT_READABLE.search(decoded) is not None
    return found if is_other else decoded
