"""Files -> documents -> all rules of a sidecar. The half of loading that needs YAML."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from policies import schema
from policies.access import AccessRules
from policies.compile import AccessContext, compile_access
from policies.compile_configuration import compile_configuration
from policies.compile_resiliency import compile_resiliency
from policies.configuration import ConfigurationValues
from policies.documents import Document, examine, read_documents
from policies.errors import DocumentError, Fault
from policies.report import Report
from policies.resiliency import ResiliencyRules

_UNBUILT_KINDS = frozenset(
    {"Component", "Configuration", "HTTPEndpoint", "MCPServer", "Subscription", "WorkflowAccessPolicy"}
)
_ACCESS = "spec.accessControl"


class Assembled(Struct, frozen=True, kw_only=True):
    """Everything that the files say, and what their author should know."""

    access: AccessRules
    resiliency: ResiliencyRules
    configuration: ConfigurationValues
    warnings: tuple[str, ...]


def assemble(
    config_files: Sequence[Path],
    resource_files: Sequence[Path],
    context: AccessContext,
    *,
    is_lenient: bool,
    env: Mapping[str, str],
) -> Assembled:
    """Read and compile all files. Blocks on the disk. Raises: DocumentError with every fault of every file."""
    report = Report()
    configurations = [
        found
        for path in config_files
        if (found := _configuration(_read(path, env, report), path, report)) is not None
    ]
    resiliencies = _resiliencies(resource_files, report)
    access = compile_access(configurations, context, report)
    values = compile_configuration(configurations, report)
    resiliency = compile_resiliency(resiliencies, context.own_app_id, report)
    stopping = [fault for fault in report.faults if not (is_lenient and fault.is_lenient)]
    if stopping:
        raise DocumentError(dict.fromkeys(stopping))
    forgiven = [f"{fault} (forgiven by --config-lenient)" for fault in report.faults]
    return Assembled(
        access=access,
        resiliency=resiliency,
        configuration=values,
        warnings=tuple(dict.fromkeys([*forgiven, *report.warnings])),
    )


def _read(path: Path, env: Mapping[str, str] | None, report: Report) -> tuple[Document, ...] | None:
    try:
        return read_documents(path, env)
    except DocumentError as error:
        report.faults += error.faults
        return None


def _configuration(
    documents: tuple[Document, ...] | None,
    path: Path,
    report: Report,
) -> tuple[Document, schema.Configuration] | None:
    if documents is None:
        return None
    if not documents:
        # A file that is just being written looks like this; taking it for "no policy" would open the door.
        report.faults.append(
            Fault(path=path, line=0, field="", problem="is empty (expected a Configuration)")
        )
        return None
    for extra in documents[1:]:
        is_harmless = not _holds_access(extra.value)
        report.fault(
            extra, (), "is a second document (expected one Configuration in a file)", is_lenient=is_harmless
        )
    document = _with_kind(documents[0], report)
    configuration, faults = examine(document, schema.Configuration)
    report.faults += [_hardened(document, fault) for fault in faults]
    return (document, configuration) if configuration is not None else None


def _with_kind(document: Document, report: Report) -> Document:
    if not isinstance(document.value, dict) or "kind" in document.value:
        return document
    report.fault(document, (), "has no kind (expected kind: Configuration)", is_lenient=True)
    return replace(document, value={**document.value, "kind": "Configuration"})


def _holds_access(value: object) -> bool:
    if isinstance(value, dict):
        return any(
            key in {"accessControl", "defaultAction", "policies"} or _holds_access(value[key])
            for key in value
        )
    return False


def _hardened(document: Document, fault: Fault) -> Fault:
    """An unknown key is not forgiven where dropping it could drop access control."""
    if not fault.is_lenient:
        return fault
    if fault.field.startswith(_ACCESS):
        return replace(fault, is_lenient=False)
    value: object = document.value
    for part in fault.field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    last = fault.field.rpartition(".")[2].lower()
    is_like = difflib.get_close_matches(last, ["accesscontrol", "spec"], n=1, cutoff=0.6)
    return replace(fault, is_lenient=False) if is_like or _holds_access(value) else fault


def _resiliencies(files: Iterable[Path], report: Report) -> list[tuple[Document, schema.Resiliency]]:
    found: list[tuple[Document, schema.Resiliency]] = []
    unbuilt: Counter[str] = Counter()
    for path in files:
        for document in _read(path, None, report) or ():
            kind = document.value.get("kind") if isinstance(document.value, dict) else None
            if kind == "Resiliency":
                resiliency, faults = examine(document, schema.Resiliency)
                report.faults += faults
                if resiliency is not None:
                    found.append((document, resiliency))
            elif isinstance(kind, str) and kind in _UNBUILT_KINDS:
                unbuilt[kind] += 1
            else:
                _unknown_kind(document, kind, report)
    for kind, count in sorted(unbuilt.items()):
        where = "is read from --config alone" if kind == "Configuration" else "has no effect in postern"
        report.warnings.append(f"kind {kind} among the resources {where} ({count} found)")
    return found


def _unknown_kind(document: Document, kind: object, report: Report) -> None:
    if kind == "AccessPolicy":
        # Skipping it would leave the door open that it was meant to close.
        report.fault(
            document, ("kind",), "AccessPolicy is not supported (expected spec.accessControl in --config)"
        )
        return
    if not isinstance(kind, str):
        report.fault(document, (), "has no kind (expected one such as Resiliency)", is_lenient=True)
        return
    close = difflib.get_close_matches(kind, ["Resiliency", *_UNBUILT_KINDS], n=1)
    hint = f"did you mean {close[0]}?" if close else "expected Resiliency"
    report.fault(document, ("kind",), f"{kind} is unknown ({hint})", is_lenient=True)
