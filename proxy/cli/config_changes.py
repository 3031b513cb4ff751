"""What differs between documents as they were and as they are, field by field; pure. Values are shown without secrets."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from policies.errors import DocumentError
from policies.reading.construct import Place
from policies.reading.documents import format_place, parse_documents
from proxy.cli.redaction import REMOVED, redact


class Field(Struct, frozen=True, kw_only=True):
    """One field that holds a value of its own. shown: the same without secrets."""

    value: object
    shown: object
    line: int


class Change(Struct, frozen=True, kw_only=True, rename="camel"):
    """One field that was added (before is None), removed (after is None) or changed. line: in the file that has it, after if both do.

    is_secret: it is another value, which is not shown.
    """

    path: str
    line: int
    resource: str
    field: str
    before: object
    after: object
    is_secret: bool = False


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """Of files by their paths, given their texts: by file, resource and field. A text that is no YAML has one field, itself."""
    found: list[Change] = []
    for path in dict.fromkeys([*before, *after]):
        was, now = _fields(path, before.get(path)), _fields(path, after.get(path))
        for key in dict.fromkeys([*was, *now]):
            one, other = was.get(key), now.get(key)
            if one is not None and other is not None and one.value == other.value:
                continue
            found.append(_change(path, key, one, other))
    return found


def _change(path: str, key: tuple[str, str], before: Field | None, after: Field | None) -> Change:
    written = after or before
    assert written is not None
    shown = tuple(None if one is None else one.shown for one in (before, after))
    return Change(
        path=path,
        line=written.line,
        resource=key[0],
        field=key[1],
        before=shown[0],
        after=shown[1],
        is_secret=before is not None and after is not None and shown[0] == shown[1],
    )


def _fields(path: str, text: str | None) -> dict[tuple[str, str], Field]:
    if text is None:
        return {}
    try:
        documents = parse_documents(Path(path), text, None)
    except DocumentError as error:
        return {("", ""): Field(value=text, shown="(no valid YAML)", line=error.faults[0].line)}
    found: dict[tuple[str, str], Field] = {}
    for number, document in enumerate(documents):
        name = resource_of(document.value)
        while any(key[0] == name for key in found):  # several of one name: by their order
            name = f"{name} ({number + 1})"
        clean = redact(document.value)
        for place, value in leaves(document.value):
            field = Field(value=value, shown=_at(clean, place), line=document.line_of(place))
            found[name, format_place(place)] = field
    return found


def resource_of(value: object) -> str:
    """`Kind name`, as far as a document says."""
    if not isinstance(value, dict):
        return ""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return " ".join(str(part) for part in (value.get("kind"), name) if part)


def leaves(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Each value that has none below it; lists of plain values are one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*place, number))
    else:
        yield place, value


def _at(clean: object, place: Place) -> object:
    """What stands there without secrets; a name that was itself removed hides what is below it."""
    for part in place:
        inner: object = REMOVED
        if isinstance(clean, list) and isinstance(part, int):
            inner = clean[part] if part < len(clean) else REMOVED
        elif isinstance(clean, dict):
            inner = clean.get(part, REMOVED)
        clean = inner
    return clean


def setting_changes(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Settings that a flag would give another value than is in force; of those that a variable or chance decides nothing can be said."""
    by_name = {row["name"]: row for row in before}
    found = []
    for row in after:
        old = by_name.get(row["name"])
        if (
            old is None
            or "flag" not in (row["source"], old["source"])
            or "environment" in (row["source"], old["source"])
        ):
            continue
        if row["name"].endswith("port") and not row["value"]:
            continue  # any free one
        if row["value"] != old["value"]:
            found.append({"name": row["name"], "before": old["value"], "after": row["value"]})
    return found
