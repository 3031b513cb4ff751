"""YAML files -> documents of plain values, each field with the line that it stands on.

Owns reading, `$VAR` expansion, and turning schema violations into faults. Knows no schema of its own, so that
run files are read by the same code as policies.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import yaml
from msgspec import Struct

from policies.errors import DocumentError, Fault
from policies.reading.construct import Place, construct
from policies.reading.loader import Loader, TooDeepError
from policies.reading.validation import to_struct

MAX_FILE_BYTES = 4 * 1024 * 1024  # a policy of 10 000 rules takes about 1 MiB

_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z0-9_]+)|\{([^}\n]*)\})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Begins what a document has in the place of a variable that is not set; of private use.
MARK: Final = "\ue000"
_MARK = re.compile(f"{MARK}(\\d+)\ue001")

ModelT = TypeVar("ModelT", bound=Struct)


class Document(Struct, frozen=True, kw_only=True):
    """One YAML document: plain values (dict, list, str, int, float, bool, None) and the place of every field."""

    path: Path
    value: object
    places: Mapping[Place, tuple[int, int]]

    @property
    def line(self) -> int:
        """The first line of the document."""
        return self.places[()][0]

    def has(self, place: Place) -> bool:
        """Whether a key is written there."""
        value = self.value
        for part in place:
            if isinstance(part, int):
                value = value[part] if isinstance(value, list) and part < len(value) else None
            elif not isinstance(value, dict) or part not in value:
                return False
            else:
                value = value[part]
        return True

    def line_of(self, place: Place) -> int:
        """The line of a field, or of the nearest field around it that is written down."""
        for length in range(len(place), 0, -1):
            if (found := self.places.get(place[:length])) is not None:
                return found[0]
        return self.line

    def fault(self, place: Place, problem: str, *, is_lenient: bool = False) -> Fault:
        """A fault at a field of this document."""
        return Fault(
            path=self.path,
            line=self.line_of(place),
            field=format_place(place),
            problem=problem,
            is_lenient=is_lenient,
        )


def format_place(place: Place) -> str:
    """`("spec", "policies", 0, "appId")` -> `spec.policies[0].appId`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_documents(
    path: Path, env: Mapping[str, str] | None, *, is_text: Callable[[Place], bool] = lambda _: False
) -> tuple[Document, ...]:
    """All documents of a file that are not empty; `$VAR` is replaced from `env` unless that is None.

    Scalars at places where `is_text` says so keep the text that is written: `3.10` and `yes` there are neither a number nor a boolean.

    Blocks on the disk. Raises: DocumentError with every fault of the file.
    """
    return parse_documents(path, read_text(path), env, is_text=is_text)


def read_partly(path: Path, env: Mapping[str, str] | None) -> tuple[tuple[Document, ...], tuple[Fault, ...]]:
    """The same and faults in how values are written, such as a key that is given twice, or a variable that is not set; the documents lack
    these values, or have a mark (`MARK`) in the place of a variable's.

    For whoever tells all that is wrong at once, not to be gone by after a fault. Raises: DocumentError where nothing can be read.
    """
    return _parse(path, read_text(path), env, lambda _: False)


def parse_documents(
    path: Path,
    text: str,
    env: Mapping[str, str] | None,
    *,
    is_text: Callable[[Place], bool] = lambda _: False,
) -> tuple[Document, ...]:
    """The same of a file's text. Raises: DocumentError."""
    documents, faults = _parse(path, text, env, is_text)
    if faults:
        raise DocumentError(faults)
    return documents


def _parse(
    path: Path, text: str, env: Mapping[str, str] | None, is_text: Callable[[Place], bool]
) -> tuple[tuple[Document, ...], tuple[Fault, ...]]:
    unset: list[Fault] = []
    if env is not None:
        text = _expand(path, text, env, unset)
    documents: list[Document] = []
    faults: list[Fault] = []
    for node in _compose(path, text):
        built = construct(path, node, format_place, is_text)
        faults += built.faults
        documents.append(Document(path=path, value=built.value, places=built.places))
    faults += _unset_in_use(documents, unset)
    return tuple(document for document in documents if document.value is not None), tuple(faults)


def read_text(path: Path) -> str:
    """A file's text. Blocks on the disk. Raises: DocumentError where it can't be read, is too large or is not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DocumentError(
            [Fault(path=path, line=0, field="", problem=f"can't be read: {error.strerror}")]
        ) from error
    if len(data) > MAX_FILE_BYTES:
        problem = f"is too large (expected at most {MAX_FILE_BYTES} bytes)"
        raise DocumentError([Fault(path=path, line=0, field="", problem=problem)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        fault = Fault(path=path, line=line, column=column, field="", problem="is not UTF-8 text")
        raise DocumentError([fault]) from error


def _compose(path: Path, text: str) -> Iterator[yaml.Node]:
    try:
        yield from yaml.compose_all(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        problem = error.problem or error.context or ""
        problem = problem if isinstance(error, TooDeepError) else f"is not valid YAML: {problem}"
        raise DocumentError(
            [Fault(path=path, line=line, column=column, field="", problem=problem)]
        ) from error
    except yaml.YAMLError as error:
        problem = f"is not valid YAML: {str(error).splitlines()[0]}"
        raise DocumentError([Fault(path=path, line=0, field="", problem=problem)]) from error


def _expand(path: Path, text: str, env: Mapping[str, str], unset: list[Fault]) -> str:
    """Replace variables in the text, as daprd does, before YAML is read.

    An unset one leaves a mark, so that it is a fault only where it is part of a value and not of a comment.
    """

    def fault(match: re.Match[str], problem: str) -> str:
        start = text.rfind("\n", 0, match.start()) + 1
        line = text.count("\n", 0, match.start()) + 1
        unset.append(
            Fault(path=path, line=line, column=match.start() - start + 1, field="", problem=problem),
        )
        return f"{MARK}{len(unset) - 1}\ue001"

    def replacement(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name = match.group(1) if match.group(1) is not None else match.group(2)
        if _NAME.fullmatch(name) is None:
            return fault(
                match, f"{match.group(0)} is not a variable (expected $NAME or ${{NAME}}; $$ is a plain $)"
            )
        value = env.get(name)
        if value is None:
            return fault(match, f"variable {name} is not set (write $$ for a plain $)")
        if "\n" in value or "\r" in value:
            return fault(match, f"variable {name} holds a line break (expected one line)")
        return value

    return _VARIABLE.sub(replacement, text)


def _unset_in_use(documents: list[Document], unset: list[Fault]) -> list[Fault]:
    if not unset:
        return []
    used: set[int] = set()
    for document in documents:
        used.update(int(number) for text in _texts(document.value) for number in _MARK.findall(text))
    return [fault for number, fault in enumerate(unset) if number in used]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def validate(document: Document, model: type[ModelT]) -> ModelT:
    """The document as a `model`. Raises: DocumentError with every fault, unknown keys included."""
    instance, faults = examine(document, model)
    if faults or instance is None:
        raise DocumentError(faults)
    return instance


def examine(document: Document, model: type[ModelT]) -> tuple[ModelT | None, tuple[Fault, ...]]:
    """The document as a `model`, and its faults; the model is there even so if all faults are lenient.

    Unknown keys are the lenient ones; the model is then made without them.
    """
    faults: list[Fault] = []

    def tell(place: Place, problem: str, is_lenient: bool) -> None:
        faults.append(document.fault(place, problem, is_lenient=is_lenient))

    made = to_struct(document.value, model, tell)
    return (made if all(fault.is_lenient for fault in faults) else None), tuple(faults)
