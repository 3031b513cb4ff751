"""Plain values -> the Structs of a schema, with everything that is wrong reported at once, each with its place. Pure.

A schema is written in annotations: text, whole numbers, booleans, `list[...]`, `dict[str, ...]`, `Literal[...]`, unions, `object` for
anything, Structs for mappings whose keys are all known, and `Annotated[..., Meta(ge=, le=, min_length=)]` for bounds.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

from policies.reading.construct import Place, WrittenFloat, WrittenInt, text_of
from policies.reading.schema import OwnSection

Kind: TypeAlias = Any  # an annotation: a type, or what `typing` makes of types
Made: TypeAlias = Any  # what an annotation describes, or None with a fault
Tell = Callable[[Place, str, bool], None]  # place, problem, whether it may be forgiven
ModelT = TypeVar("ModelT", bound=Struct)

_NOT_A_MAPPING: Final = "is not a mapping (expected key: value lines)"
_NOT_A_LIST: Final = "is not a list (expected lines beginning with `- `, or [a, b])"
_NOT_A_BOOLEAN: Final = "is not a boolean (expected true or false, without quotes)"
_NOT_A_NUMBER: Final = "is not a whole number (expected digits, without quotes)"
_NOT_TEXT: Final = "is not text (expected one value)"
_BOOLEAN_FOR_TEXT: Final = "is a YAML boolean, not text (expected it in quotes)"
_NOTHING: Final = "has no value (expected one, or leave the key out)"


def to_struct(value: object, model: type[ModelT], tell: Tell) -> ModelT | None:
    """`value` as a `model`, None where that can't be; faults go to `tell`.

    Unknown keys are told as what may be forgiven, and left out. A number where text is wanted is taken as it is written, as Dapr does.
    """
    made: ModelT | None = _read(value, model, (), tell)
    return made


def _read(value: object, kind: Kind, place: Place, tell: Tell) -> Made:
    if kind is object:
        return value
    family = _family(kind)
    if family is Annotated:
        base, *limits = get_args(kind)
        made = _read(value, base, place, tell)
        if made is not None:
            _check_limits(made, limits, place, tell)
        return made
    if family in (Union, UnionType):
        return _one_of(value, get_args(kind), place, tell)
    if value is None:
        tell(place, _NOTHING, False)
        return None
    return _READERS[family](value, kind, place, tell)


def _family(kind: Kind) -> Kind:
    origin: Kind = get_origin(kind)
    if origin is None:
        return Struct if issubclass(kind, Struct) else kind
    return origin


def _one_of(value: object, kinds: Sequence[Any], place: Place, tell: Tell) -> object:
    """The member that a value is of by its own type; else the first one says what was expected."""
    if value is None and NoneType in kinds:
        return None
    for kind in kinds:
        if _type(value) is _plain(kind):
            return _read(value, kind, place, tell)
    return _read(value, kinds[0], place, tell)


def _type(value: object) -> type:
    """The type that YAML gives to a value, however a number is written."""
    kind = type(value)
    return {WrittenInt: int, WrittenFloat: float}.get(kind, kind)


def _plain(kind: Kind) -> Kind:
    """The type that YAML gives to values of a kind."""
    family = _family(kind)
    if family is Annotated:
        return _plain(get_args(kind)[0])
    return {Struct: dict, Literal: str}.get(family, family)


def _check_limits(made: Made, limits: Sequence[Any], place: Place, tell: Tell) -> None:
    for limit in limits:
        if not isinstance(limit, Meta):
            continue
        if limit.ge is not None and made < limit.ge:
            tell(place, f"{made} is out of range (expected at least {limit.ge})", False)
        if limit.le is not None and made > limit.le:
            tell(place, f"{made} is out of range (expected at most {limit.le})", False)
        if limit.min_length is not None and len(made) < limit.min_length:
            least = "one entry" if limit.min_length == 1 else f"{limit.min_length} entries"
            tell(place, f"is too short (expected {least} at least)", False)


def _text(value: object, kind: Kind, place: Place, tell: Tell) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        tell(place, _BOOLEAN_FOR_TEXT, False)
        return None
    if isinstance(value, int | float):
        return text_of(value)
    tell(place, _NOT_TEXT, False)
    return None


def _exact(expected: str) -> Callable[[object, Kind, Place, Tell], object]:
    def read(value: object, kind: Kind, place: Place, tell: Tell) -> object:
        if _type(value) is kind:
            return kind(value)
        tell(place, expected, False)
        return None

    return read


def _decimal(value: object, kind: Kind, place: Place, tell: Tell) -> float | None:
    if _type(value) in {int, float}:
        assert isinstance(value, int | float)
        return float(value)
    tell(place, "is not a number", False)
    return None


def either(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _literal(value: object, kind: Kind, place: Place, tell: Tell) -> object:
    known = get_args(kind)
    if value in known:
        return value
    tell(place, f"`{value}` is unknown (expected {either(map(str, known))})", False)
    return None


def _list(value: object, kind: Kind, place: Place, tell: Tell) -> list[Any] | None:
    if not isinstance(value, list):
        tell(place, _NOT_A_LIST, False)
        return None
    (item,) = get_args(kind)
    return [_read(one, item, (*place, number), tell) for number, one in enumerate(value)]


def _dict(value: object, kind: Kind, place: Place, tell: Tell) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        tell(place, _NOT_A_MAPPING, False)
        return None
    _, item = get_args(kind)
    return {key: _read(one, item, (*place, key), tell) for key, one in value.items()}


def _struct(value: object, kind: type[Struct], place: Place, tell: Tell) -> Struct | None:
    if not isinstance(value, dict):
        tell(place, _NOT_A_MAPPING, False)
        return None
    known = _keys(kind)
    made: dict[str, Any] = {}
    is_whole = True
    for key, field in known.items():
        if key in value and value[key] is None and issubclass(kind, OwnSection):
            tell((*place, key), _NOTHING, False)
            is_whole = is_whole and not field.required
        elif key in value:
            made[field.name] = _read(value[key], field.type, (*place, key), tell)
        elif field.required:
            tell((*place, key), "is missing", False)
            is_whole = False
    for key in value:
        if key not in known:
            tell((*place, key), f"unknown key ({_hint(str(key), known)})", True)
    return kind(**made) if is_whole else None


@cache
def _keys(kind: type[Struct]) -> dict[str, FieldInfo]:
    return {field.encode_name: field for field in fields(kind)}


def _hint(key: str, known: dict[str, FieldInfo]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"expected {', '.join(sorted(known)) or 'nothing here'}"


_READERS: Final[dict[Any, Callable[[Any, Any, Place, Tell], Any]]] = {
    Struct: _struct,
    Literal: _literal,
    list: _list,
    dict: _dict,
    str: _text,
    bool: _exact(_NOT_A_BOOLEAN),
    int: _exact(_NOT_A_NUMBER),
    float: _decimal,
}
