"""Every reading that an app may give a path: routers decode, cut and clean it in different ways and orders. Pure.

Rules judge each of these readings, and a path is allowed only if every one is. They are the closure of a few steps
over the path as sent, decoded once and decoded twice, so each step may come before or after a decoding.
Source: RFC 3986 §3.3, §5.2.4, §6.2.2; the WHATWG URL standard; the routers of Spring, Tomcat, Go, Fastify and Node.
The native engine reads paths the same way (`proxy/engine/native/crates/core/src/decision/path_readings.rs`): `tests/vectors/readings.json`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from urllib.parse import unquote_to_bytes

MAX_PATH_BYTES = 8_192  # of a path that can be read in more than one way
MAX_READINGS = 64  # a path with more of them was made to have them
MAX_READ_BYTES = 32_768  # of all readings together, which bounds what judging one call costs
_DECODINGS = 2

_AMBIGUOUS = re.compile(r"[%;\\?#\x00-\x1f\x7f]|//|/\.")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ESCAPED_SLASHES = (b"%2F", b"%2f", b"%5C", b"%5c")
_PARAMETERS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"/{2,}")
_BLANKS = re.compile(rb"/ +")
_DOTS = re.compile(rb"/\.\.?(?:/|\Z)")
_ESCAPED_DOT = re.compile(rb"/(?:\.%2[Ee]|%2[Ee]\.?|%2[Ee]%2[Ee])(?:/|\Z)")
_PLAIN_DOTS = {b".": 1, b"..": 2}
_DOT_FORMS = (b".", b"%2e", b"%2E")
_ESCAPED_DOTS = {
    **dict.fromkeys(_DOT_FORMS, 1),
    **dict.fromkeys((one + other for one in _DOT_FORMS for other in _DOT_FORMS), 2),
}
_QUERY = re.compile(rb"[?#].*", re.DOTALL)


def readings(path: str) -> tuple[str, ...] | None:
    """The distinct readings of a path, the path itself first, without trailing slashes.

    None: one holds control characters or is not UTF-8, or there are too many to judge.
    """
    if _AMBIGUOUS.search(path) is None:
        return (path,)
    try:
        sent = path.encode()
    except UnicodeEncodeError:
        return None
    if len(sent) > MAX_PATH_BYTES:
        return None
    found = _closure(sent)
    if found is None or any(_CONTROL.search(one) is not None for one in found):
        return None
    try:
        return tuple(one.decode() for one in found)
    except UnicodeDecodeError:
        return None


def _closure(sent: bytes) -> list[bytes] | None:
    found: list[bytes] = []
    known: set[bytes] = set()

    def add(one: bytes) -> None:
        one = one.rstrip(b"/") or b"/"
        if one not in known:
            known.add(one)
            found.append(one)

    level: Iterable[bytes] = [sent]
    for _ in range(_DECODINGS + 1):
        begin, read_bytes = len(found), sum(map(len, found))
        for one in level:
            add(one)
        for one in islice(found, begin, None):  # which grows meanwhile
            read_bytes += len(one)
            if len(found) > MAX_READINGS or read_bytes > MAX_READ_BYTES:
                return None
            for step in _STEPS:
                add(step(one))
            for resolved in chain(_resolved(one), _resolved_escaped(one)):
                read_bytes += len(one)
                if len(found) > MAX_READINGS or read_bytes > MAX_READ_BYTES:
                    return None
                add(resolved)
        level = (decode(one) for one in found[begin:] for decode in _DECODERS)  # when they are asked for
    return found


def _first_parameter(path: bytes) -> bytes:
    return path.partition(b";")[0]


def _each_parameter(path: bytes) -> bytes:
    return _PARAMETERS.sub(b"", path) if b";" in path else path


def _backslashes(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _merged(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path) if b"//" in path else path


def _unblanked(path: bytes) -> bytes:
    """Spring's static files begin behind blanks."""
    return _BLANKS.sub(b"/", path) if b"/ " in path else path


def _resolved(path: bytes) -> Iterator[bytes]:
    return _without_dots(path, _PLAIN_DOTS) if _DOTS.search(path) is not None else iter(())


def _resolved_escaped(path: bytes) -> Iterator[bytes]:
    """Escaped dots are dots already (WHATWG URL, "double-dot URL path segment")."""
    return _without_dots(path, _ESCAPED_DOTS) if _ESCAPED_DOT.search(path) is not None else iter(())


def _without_dots(path: bytes, dots: Mapping[bytes, int]) -> Iterator[bytes]:
    """Resolved behind each prefix that an app may have cut off before, the longest first.

    No dots lead out of such a mount: Go's `http.StripPrefix` and `http.FileServer` read `/files/%2e%2e/x` as `/files/x`.
    """
    segments = path.split(b"/")[1:]
    first = next(at for at, segment in enumerate(segments) if segment in dots)
    for depth in range(first, -1, -1):
        kept = segments[:depth]
        is_held = False
        for segment in segments[depth:]:
            count = dots.get(segment)
            if count is None:
                kept.append(segment)
            elif count == 2 and len(kept) > depth:
                kept.pop()
            elif count == 2:
                is_held = True
        yield b"/" + b"/".join(kept)
        if not is_held:  # shorter prefixes make no difference
            return


def _after_authority(path: bytes) -> bytes:
    """`new URL(path, base)`, as many Node apps read a path, takes what follows two slashes for a host."""
    if not path.startswith(b"//"):
        return path
    return b"/" + path.lstrip(b"/").partition(b"/")[2]


def _before_query(path: bytes) -> bytes:
    """A path that was decoded and then parsed again ends at an escaped `?` or `#`."""
    return _QUERY.sub(b"", path)


def _decoded_segments(path: bytes) -> bytes:
    """Split first, then decoded: an escaped slash stays within its segment."""
    for escape in _ESCAPED_SLASHES:
        path = path.replace(escape, b"%25" + escape[1:])
    return unquote_to_bytes(path)


_DECODERS = (unquote_to_bytes, _decoded_segments)
_STEPS = (
    _first_parameter,
    _each_parameter,
    _backslashes,
    _merged,
    _unblanked,
    _after_authority,
    _before_query,
)
