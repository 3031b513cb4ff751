"""What calls policies are tried on: cases that somebody wrote, and calls that an access log recorded."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from policies.reading.documents import Document, read_documents, validate
from proxy.cli.errors import UsageError
from proxy.cli.policy.judging import ANONYMOUS, Ask
from proxy.contract.head import Header

MAX_LINES = 1_000_000  # of an access log


class Case(Struct, frozen=True, rename="camel"):
    """A call and what should become of it; `grpc` is the path of a method, in the place of method and path.

    claims: of the token that it brings, verified; `iss` is its issuer. asks: the external authorizers that must be asked about it, which
    `allow` leaves to them; None: any or none.
    """

    expect: Literal["allow", "deny"]
    from_: str = field(name="from")
    name: str = ""
    method: str = "GET"
    path: str = ""
    grpc: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    claims: dict[str, object] = field(default_factory=dict)
    asks: list[str] | None = None


class CaseFile(Struct, frozen=True, rename="camel"):
    """Cases for the policies in `files`, which are named from where the file is."""

    app: str
    files: list[str]
    cases: list[Case]
    namespace: str = "default"
    trust_domain: str = "public"
    protocol: Literal["http", "grpc"] = "http"
    profile: Literal["dev", "production", "daprd"] = "production"


def read_cases(path: Path) -> tuple[Document, CaseFile]:
    """The cases in a file. Blocks on the disk. Raises: DocumentError; UsageError."""
    documents = read_documents(path, None)
    if len(documents) != 1:
        raise UsageError(
            f"{path}: holds {len(documents)} documents", hint="expected one, with app, files and cases"
        )
    return documents[0], validate(documents[0], CaseFile)


def ask_of(case: Case) -> Ask:
    """The call of a case."""
    return Ask(
        caller=case.from_,
        method="POST" if case.grpc else case.method,
        path=case.grpc or case.path or "/",
        is_grpc=bool(case.grpc),
        headers=tuple(as_header(name, value) for name, value in case.headers.items()),
        claims=json.dumps(case.claims) if case.claims else "",
    )


def as_header(name: str, value: str) -> Header:
    """A header as it comes in."""
    return name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")


def recorded(path: Path, app_id: str, *, is_answered: bool = False) -> Counter[Ask]:
    """The calls of peers to an app in the JSON lines of an access log, and how often each; `is_answered`: no denied ones.

    Blocks on the disk. Raises: UsageError.
    """
    found: Counter[Ask] = Counter()
    for line in _lines(path):
        if is_answered and line.get("cause") == "denied":
            continue
        if line.get("direction") == "inbound" and line.get("dst") == app_id:
            verb, target, peer = line.get("verb"), line.get("path"), line.get("peer")
            is_grpc = line.get("protocol") == "grpc"
            found[
                Ask(caller=str(peer or ANONYMOUS), method=str(verb), path=str(target), is_grpc=is_grpc)
            ] += 1
    return found


def _lines(path: Path) -> Iterator[dict[str, object]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if number > MAX_LINES:
                    raise UsageError(f"{path}: more than {MAX_LINES} lines", hint="give a part of it")
                try:
                    line = json.loads(text)
                except ValueError as error:
                    raise UsageError(
                        f"{path}:{number}: is not JSON", hint="expected lines of --access-log"
                    ) from error
                if isinstance(line, dict):
                    yield line
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't be read: {error}") from error
