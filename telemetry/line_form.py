"""What the access log is made of: the keys of its lines, in JSON or in a template of the user's own, and which calls have one. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from telemetry.secret_names import is_secret_name

MAX_CHARS: Final = 1_024  # of a path or a header's value
#: Every key, in the order in which lines have them, and what it says.
KEYS: Final[Mapping[str, str]] = {
    "time": "when the call ended, in UTC with nanoseconds",
    "direction": "outbound: from the app here; inbound: from a peer",
    "src": "the caller's app-id",
    "src_namespace": "and its namespace",
    "dst": "the callee's app-id",
    "dst_namespace": "and its namespace",
    "peer": "SPIFFE id of the other side, as its certificate proves it; empty without mutual TLS",
    "protocol": "http, grpc or websocket",
    "verb": "the HTTP method; `method` is another name for it",
    "path": "without the query, at most 1,024 characters; empty with `obfuscateURLs`",
    "status": "of HTTP; 0: there was no answer",
    "grpc_code": "of gRPC, by name; null for other calls",
    "cause": "why a proxy ended the call: see Errors; null: the app answered",
    "made_by": "which one did: this-proxy or peer-proxy",
    "bytes_in": "of the request's body",
    "bytes_out": "of the answer's",
    "duration_us": "microseconds to the end",
    "ttfb_us": "microseconds to the head of the answer; null: there was none",
    "resolve_us": "of these, while its callee's name was looked up",
    "queue_us": "at limits",
    "authorize_us": "for external authorizers; null: none was asked",
    "connect_us": "of the last attempt, until it had a connection; null: there was no attempt",
    "upstream_ttfb_us": "of the last attempt, to the head of the answer; null: nothing was sent",
    "body_us": "of the last attempt, to the end; null: there was no head",
    "attempts": "tries, at least 1",
    "not_retried": "why a failure was not retried: see Retries; null: it was, or there was none",
    "endpoint": "address that was tried last",
    "decision": "the access policy and rule that decided, at the callee",
    "policies": "those of resiliency in force, as name/kind",
    "breaker": "how the call left its circuit breaker: closed, open or half-open; null: it asked none",
    "fault": "those that were injected on purpose, with commas between; null: none",
    "trace_id": "of the trace",
    "span_id": "of this sidecar's span",
    "sampled": "whether it is recorded",
}
OF_DECISION: Final = frozenset(
    {"direction", "src", "src_namespace", "dst", "dst_namespace", "peer", "decision", "policies"}
)
_SYNONYMS: Final = {"method": "verb"}
HEADER: Final = "header:"
_PLACE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# What json.dumps leaves as it is but a terminal may obey or a reader may take for the end of a line.
UNSAFE: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


class LineForm(Struct, frozen=True, kw_only=True):
    """What a line is made of: texts, and keys or `header:name` in their places. is_json: values are written as JSON, else bare."""

    is_json: bool
    parts: tuple[tuple[bool, str], ...]  # (is it a key?, text)


class LineFilter(Struct, frozen=True, kw_only=True):
    """Which calls have a line. min_status: leaves out answers of apps below it; every: one call in N, by trace id, the same at both ends.

    What an access policy denied always has one.
    """

    min_status: int = 0
    slower_ns: int = 0
    every: int = 1


def parse_form(text: str, headers: Sequence[str] = ()) -> LineForm:
    """The form that a user wrote: `json`, keys with commas between (JSON with these alone), or a template such as `{verb} {path} {status}`.

    headers: of requests, more keys of JSON. Raises: ValueError, in words for whoever wrote it.
    """
    added = tuple(f"{HEADER}{name}" for name in headers)
    if "{" in text:
        if added:
            raise ValueError("headers stand in a template as {header:name}")
        return LineForm(is_json=False, parts=tuple(_template(text)))
    keys = KEYS if text in ("", "json") else [word.strip() for word in text.split(",")]
    parts: list[tuple[bool, str]] = []
    for key in (*map(_known, keys), *map(_known, added)):
        name = key.removeprefix(HEADER)
        parts += [(False, f"{',' if parts else '{'}{json.dumps(name)}:"), (True, key)]
    return LineForm(is_json=True, parts=(*parts, (False, "}")))


def _template(text: str) -> list[tuple[bool, str]]:
    if any(ord(char) < 0x20 or ord(char) in UNSAFE for char in text.replace("\t", "")):
        raise ValueError("a template is one line, without control characters")
    parts: list[tuple[bool, str]] = []
    at = 0
    for place in _PLACE.finditer(text):
        parts.append((False, text[at : place.start()]))
        at = place.end()
        if place[0] in ("{{", "}}"):
            parts.append((False, place[0][0]))
        elif place[1] is None:
            raise ValueError(f"a brace that stands alone is written twice: {place[0] * 2}")
        else:
            parts.append((True, _known(place[1].strip())))
    parts.append((False, text[at:]))
    return [part for part in parts if part[1]]


def _known(key: str) -> str:
    name = key.removeprefix(HEADER)
    if name != key:
        return f"{HEADER}{shown_header(name)}"
    key = _SYNONYMS.get(key, key)
    if key not in KEYS:
        raise ValueError(f"{key!r} is not a key of a line, expected {', '.join(KEYS)} or header:name")
    return key


def shown_header(name: str) -> str:
    """The name of a header whose value may be shown, in lower case. Raises: ValueError, where it is no name, or may hold a secret."""
    if not _NAME.fullmatch(name.lower()):
        raise ValueError(f"{name!r} is not the name of a header")
    if is_secret_name(name):
        raise ValueError(f"{name.lower()} may hold secrets and is never shown")
    return name.lower()


def text_of(form: LineForm) -> str:
    """The form as a template, or the keys of JSON with commas between."""
    if form.is_json:
        return ",".join(part for is_key, part in form.parts if is_key)
    return "".join(
        f"{{{part}}}" if is_key else part.replace("{", "{{").replace("}", "}}") for is_key, part in form.parts
    )


def headers_of(form: LineForm) -> list[str]:
    """The fields of requests that are in it."""
    return [part.removeprefix(HEADER) for is_key, part in form.parts if is_key and part.startswith(HEADER)]
