"""A sidecar's log line for a person at a terminal: the event first, without the fields that every line repeats. Pure."""

import re
from typing import Literal

from msgspec import Struct

_FIELD = re.compile(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|[^\s"]*)')
_ESCAPED = re.compile(r"\\(.)")
_REPEATED = frozenset({"time", "level", "msg", "app_id", "instance", "scope", "type", "ver"})

Weight = Literal["quiet", "warning", "error"]
_WEIGHTS: dict[str, Weight] = {"warning": "warning", "error": "error", "fatal": "error"}


class Shortened(Struct, frozen=True, kw_only=True):
    """What to show of a line, and how loud."""

    text: str
    weight: Weight


def shorten(line: str) -> Shortened | None:
    """`time=… level=warning msg="access denied" … verb=GET` -> `warning: access denied  verb=GET`; None for any other line."""
    if not line.startswith('time="'):
        return None
    fields = dict(_FIELD.findall(line))
    if "msg" not in fields or "level" not in fields:
        return None
    told = [f"{name}={value}" for name, value in fields.items() if name not in _REPEATED and value]
    weight = _WEIGHTS.get(_plain(fields["level"]), "quiet")
    loud = "" if weight == "quiet" else f"{weight}: "
    return Shortened(text="  ".join((loud + _plain(fields["msg"]), *told)), weight=weight)


def _plain(value: str) -> str:
    """A value without its quotes and escapes; a line break stays escaped."""
    if not value.startswith('"'):
        return value
    return _ESCAPED.sub(lambda match: match[0] if match[1] == "n" else match[1], value[1:-1])
