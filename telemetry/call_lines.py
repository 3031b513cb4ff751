"""Lines of the access log: of a finished call, or in pieces, in which what a decision knows of all its calls is text already. Pure."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from telemetry.access_log import access_fields
from telemetry.line_form import HEADER, MAX_CHARS, OF_DECISION, UNSAFE, LineFilter, LineForm
from telemetry.report import Call

Piece = tuple[str, bytes]  # (`text`, what), (`header`, its name) or (a key, nothing)
#: What lines say of where the time went; null where a call did not come to that.
TIMED: Final = ("resolve", "queue", "authorize", "connect", "upstream_ttfb", "body")
_CONTROL: Final = {code: f"\\u{code:04x}" for code in range(0x20)} | UNSAFE


def is_wanted(chosen: LineFilter, call: Call) -> bool:
    """Whether a finished call is to have a line."""
    if "denied" in (call.cause, call.said):
        return True
    is_low = call.status < chosen.min_status and not call.grpc_code
    return (
        not (is_low and call.cause is None and call.said is None)
        and call.ended_ns - call.started_ns >= chosen.slower_ns
        and (chosen.every <= 1 or call.context.trace_id % chosen.every == 0)
    )


def pieces(form: LineForm, known: Mapping[str, Any], *, is_by_path: bool, is_grpc: bool) -> list[Piece]:
    """The pieces of the lines of one decision.

    known: what it says of all its calls, by key. is_by_path: of a path, only what follows `/method` is told.
    """
    made: list[Piece] = []
    text = ""
    for is_key, part in form.parts:
        if not is_key:
            text += part
        elif part in OF_DECISION:
            text += _written(known[part], is_json=form.is_json)
        elif part == "protocol" and is_grpc:
            text += _written("grpc", is_json=form.is_json)
        else:
            if text:
                made.append(("text", text.encode("utf-8", "replace")))
            text = ""
            if part.startswith(HEADER):
                made.append(("header", part.removeprefix(HEADER).encode()))
            else:
                made.append(("method-path" if part == "path" and is_by_path else part, b""))
    if text:
        made.append(("text", text.encode("utf-8", "replace")))
    return made


def render(
    form: LineForm,
    call: Call,
    timings_us: Mapping[str, int],
    header: Callable[[bytes], bytes | None],
    *,
    hides_paths: bool = False,
) -> bytes:
    """The line of a finished call, with its end. timings_us: see `telemetry.split`. header: of its request, by name."""
    facts = access_fields(call) | {f"{part}_us": timings_us.get(part) for part in TIMED}
    facts["path"] = "" if hides_paths else call.path
    found = []
    for is_key, part in form.parts:
        if not is_key:
            found.append(part)
        elif part.startswith(HEADER):
            value = header(part.removeprefix(HEADER).encode())
            text = None if value is None else value.decode("utf-8", "replace")
            found.append(_written(text, is_json=form.is_json))
        else:
            found.append(_written(facts[part], is_json=form.is_json))
    return ("".join(found) + "\n").encode("utf-8", "replace")


def _written(value: object, *, is_json: bool) -> str:
    if isinstance(value, str):
        value = value[:MAX_CHARS]
    if is_json:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(UNSAFE)
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if value is None or value == "":
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value).translate(_CONTROL)
