"""What must not leave a machine is taken out of documents and lines: tokens, keys, passwords, values of headers. Pure.

Better too much than too little: a value goes if its key, the name beside it or its own shape says that it may be a secret.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from telemetry.secret_names import is_secret_name

REMOVED: Final = "(removed)"
_BY_NAME: Final = frozenset(
    {"headers", "metadata", "env"}
)  # lists of a name and its value, or mappings of them
_SHAPES: Final = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL), REMOVED),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*"), REMOVED),  # JWT, RFC 7519 §3
    (re.compile(r"(?i)\b(bearer|basic|digest|negotiate)\s+[^\s\"',;]+"), rf"\1 {REMOVED}"),
    (re.compile(r"//[^/@\s\"']+@"), f"//{REMOVED}@"),  # a URL's user information
    (re.compile(r"(?<=[\w/])\?[^\s\"']+"), f"?{REMOVED}"),  # and its query
    (
        re.compile(r"(?i)(--?[\w-]*(?:token|secret|passw(?:or)?d|key|credential)[\w-]*)\s+(?!-)\S+"),
        rf"\1 {REMOVED}",
    ),
    (
        re.compile(
            r"(?i)([\"']?[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|api[-_]?key|access[-_]?key|private[-_]?key|credential|authorization|cookie)"
            r"[\w.-]*[\"']?\s*[=:]\s*)(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&\"']+)"
        ),
        rf"\1{REMOVED}",
    ),
)


def redact_text(text: str) -> str:
    """A line, or several, without what looks like a secret."""
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def redact(value: object, key: str = "") -> object:
    """A document's value without secrets; `key` is the key that it stands under."""
    if is_secret_name(key) and not isinstance(value, Mapping | list | bool | None):
        return REMOVED
    if isinstance(value, Mapping):
        if is_secret_name(key) or key in _BY_NAME - {"metadata"}:
            return {_plain(name): _all_removed(inner) for name, inner in value.items()}
        return {_plain(name): redact(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [_entry(each, key) for each in value]
    return redact_text(value) if isinstance(value, str) else value


def _plain(name: object) -> str:
    return redact_text(str(name))


def _entry(value: object, key: str) -> object:
    """An entry of a list: of headers and metadata the name stays, the value goes."""
    if is_secret_name(key):
        return _all_removed(value)
    if key in _BY_NAME and isinstance(value, Mapping):
        return {
            str(name): redact_text(str(inner)) if name in {"name", "envRef"} else _all_removed(inner)
            for name, inner in value.items()
        }
    if key in _BY_NAME and isinstance(value, str):
        name, mark, _ = value.partition("=" if "=" in value else ":")
        return f"{name}{mark}{REMOVED}" if mark else REMOVED
    return redact(value)


def _all_removed(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _all_removed(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_all_removed(each) for each in value]
    return value if value is None else REMOVED
