"""Files -> documents -> all rules of a sidecar. The half of loading that needs YAML."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from policies.errors import DocumentError, Fault
from policies.reading import schema
from policies.reading.compile_access import AccessContext, compile_access
from policies.reading.compile_configuration import compile_configuration
from policies.reading.compile_resiliency import compile_resiliency
from policies.reading.documents import Document, examine, read_documents
from policies.reading.findings import Findings
from policies.rules.access import AccessRules
from policies.rules.configuration import ConfigurationValues
from policies.rules.resiliency import ResiliencyRules

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
    findings = Findings()
    configurations = [
        found
        for path in config_files
        if (found := _configuration(_read(path, env, findings), path, findings)) is not None
    ]
    resiliencies = _resiliencies(resource_files, findings)
    access = compile_access(configurations, context, findings)
    values = compile_configuration(configurations, findings)
    resiliency = compile_resiliency(resiliencies, context.own_app_id, findings)
    stopping = [fault for fault in findings.faults if not (is_lenient and fault.is_lenient)]
    if stopping:
        raise DocumentError(dict.fromkeys(stopping))
    forgiven = [f"{fault} (forgiven by --config-lenient)" for fault in findings.faults]
    return Assembled(
        access=access,
        resiliency=resiliency,
        configuration=values,
        warnings=tuple(dict.fromkeys([*forgiven, *findings.warnings])),
    )


def _read(path: Path, env: Mapping[str, str] | None, findings: Findings) -> tuple[Document, ...] | None:
    try:
        return read_documents(path, env)
    except DocumentError as error:
        findings.faults += error.faults
        return None


def _configuration(
    documents: tuple[Document, ...] | None,
    path: Path,
    findings: Findings,
) -> tuple[Document, schema.Configuration] | None:
    if documents is None:
        return None
    if not documents:
        # A file that is just being written looks like this; taking it for "no policy" would open the door.
        findings.faults.append(
            Fault(path=path, line=0, field="", problem="is empty (expected a Configuration)")
        )
        return None
    for extra in documents[1:]:
        is_harmless = not _holds_access(extra.value)
        findings.fault(
            extra, (), "is a second document (expected one Configuration in a file)", is_lenient=is_harmless
        )
    document = _with_kind(documents[0], findings)
    configuration, faults = examine(document, schema.Configuration)
    findings.faults += [_hardened(document, fault) for fault in faults]
    return (document, configuration) if configuration is not None else None


def _with_kind(document: Document, findings: Findings) -> Document:
    if not isinstance(document.value, dict) or "kind" in document.value:
        return document
    findings.fault(document, (), "has no kind (expected kind: Configuration)", is_lenient=True)
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


def _resiliencies(files: Iterable[Path], findings: Findings) -> list[tuple[Document, schema.Resiliency]]:
    found: list[tuple[Document, schema.Resiliency]] = []
    unbuilt: Counter[str] = Counter()
    for path in files:
        for document in _read(path, None, findings) or ():
            kind = document.value.get("kind") if isinstance(document.value, dict) else None
            if kind == "Resiliency":
                resiliency, faults = examine(document, schema.Resiliency)
                findings.faults += faults
                if resiliency is not None:
                    found.append((document, resiliency))
            elif isinstance(kind, str) and kind in _UNBUILT_KINDS:
                unbuilt[kind] += 1
            else:
                _unknown_kind(document, kind, findings)
    for kind, count in sorted(unbuilt.items()):
        where = "is read from --config alone" if kind == "Configuration" else "has no effect in postern"
        findings.warnings.append(f"kind {kind} among the resources {where} ({count} found)")
    return found


def _unknown_kind(document: Document, kind: object, findings: Findings) -> None:
    if kind == "AccessPolicy":
        # Skipping it would leave the door open that it was meant to close.
        findings.fault(
            document, ("kind",), "AccessPolicy is not supported (expected spec.accessControl in --config)"
        )
        return
    if not isinstance(kind, str):
        findings.fault(document, (), "has no kind (expected one such as Resiliency)", is_lenient=True)
        return
    close = difflib.get_close_matches(kind, ["Resiliency", *_UNBUILT_KINDS], n=1)
    hint = f"did you mean {close[0]}?" if close else "expected Resiliency"
    findings.fault(document, ("kind",), f"{kind} is unknown ({hint})", is_lenient=True)
