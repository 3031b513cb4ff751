"""Files -> documents -> all rules of a sidecar. The half of loading that needs YAML."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from policies.errors import DocumentError, Fault, advised
from policies.reading import own_schema, own_traffic, schema
from policies.reading.compile_access import AccessContext, compile_access
from policies.reading.compile_access_policies import compile_access_policies
from policies.reading.compile_configuration import compile_configuration
from policies.reading.compile_http_endpoints import compile_http_endpoints
from policies.reading.compile_pipelines import MIDDLEWARE, compile_pipelines
from policies.reading.compile_resiliency import compile_resiliency
from policies.reading.compile_traffic import compile_traffic
from policies.reading.documents import Document, ModelT, examine, read_partly
from policies.reading.findings import Findings
from policies.reading.validation import either
from policies.rules.access import AccessRules
from policies.rules.configuration import ConfigurationValues
from policies.rules.http_endpoints import HttpEndpoint
from policies.rules.pipelines import Pipelines
from policies.rules.resiliency import ResiliencyRules
from policies.rules.traffic import TrafficRules, unsaid_traffic

_BUILT_KINDS = ("AccessPolicy", "Traffic", "Resiliency", "HTTPEndpoint")
_UNBUILT_KINDS = frozenset({"Configuration", "MCPServer", "Subscription", "WorkflowAccessPolicy"})
_ACCESS = "spec.accessControl"
_GUARDING = ("accesscontrol", "spec", "httppipeline", "apphttppipeline", "handlers")


class Assembled(Struct, frozen=True, kw_only=True):
    """Everything that the files say, and what their author should know."""

    access: AccessRules
    resiliency: ResiliencyRules
    traffic: TrafficRules
    configuration: ConfigurationValues
    pipelines: Pipelines
    http_endpoints: Mapping[str, HttpEndpoint]
    warnings: tuple[str, ...] = ()


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
    configurations, resources = read(config_files, resource_files, env, findings)
    made = compile_documents(configurations, resources, context, env, findings)
    stopping = [fault for fault in findings.faults if not (is_lenient and fault.is_lenient)]
    if stopping:
        raise DocumentError(dict.fromkeys(advised(stopping)))
    forgiven = [f"{fault} (forgiven by --config-lenient)" for fault in findings.faults]
    return replace(made, warnings=tuple(dict.fromkeys([*forgiven, *findings.warnings])))


def compile_documents(
    configurations: Sequence[tuple[Document, schema.Configuration]],
    resources: "Resources",
    context: AccessContext,
    env: Mapping[str, str],
    findings: Findings,
) -> Assembled:
    """The rules that checked documents amount to; after a fault, which goes to `findings`, they mean nothing."""
    own = context.own_app_id
    access = compile_access(configurations, context, findings)
    policies = compile_access_policies(
        resources.access_policies,
        own_app_id=own,
        own_namespace=context.own_namespace,
        own_trust_domain=access.own_trust_domain,
        findings=findings,
        mode=context.access_policy_mode,
    )
    made = Assembled(
        access=replace(access, policies=policies),
        configuration=compile_configuration(configurations, findings),
        resiliency=compile_resiliency(resources.resiliencies, own, findings),
        traffic=compile_traffic(
            resources.traffics,
            own_app_id=own,
            own_namespace=context.own_namespace,
            unsaid=unsaid_traffic(context.profile),
            injects_faults=context.injects_faults,
            findings=findings,
        ),
        pipelines=compile_pipelines(configurations, resources.components, own, env, findings),
        http_endpoints=compile_http_endpoints(resources.http_endpoints, own, env, findings),
    )
    findings.drop_echoes()
    return made


def read(
    config_files: Sequence[Path], resource_files: Sequence[Path], env: Mapping[str, str], findings: Findings
) -> tuple[list[tuple[Document, schema.Configuration]], "Resources"]:
    """The documents that have an effect, each checked against its schema; what is wrong goes to `findings`. Blocks on the disk."""
    configurations = [
        found
        for path in config_files
        if (found := _configuration(_read(path, env, findings), path, findings)) is not None
    ]
    return configurations, _resources(resource_files, findings)


def _read(path: Path, env: Mapping[str, str] | None, findings: Findings) -> tuple[Document, ...] | None:
    try:
        documents, faults = read_partly(path, env)
    except DocumentError as error:
        findings.faults += error.faults
        return None
    findings.faults += faults
    findings.written += faults
    return documents or (None if faults else ())


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
    first = next((document for document in documents if _kind(document) == "Configuration"), documents[0])
    for extra in documents:
        if extra is not first:
            is_harmless = not _holds_access(extra.value)
            problem = "is a second document beside a Configuration (expected one alone in its file)"
            findings.fault(extra, (), problem, is_lenient=is_harmless)
    document = _with_kind(first, findings)
    configuration, faults = examine(document, schema.Configuration)
    findings.faults += [_hardened(document, fault) for fault in faults]
    return (document, configuration) if configuration is not None else None


def _kind(document: Document) -> object:
    return document.value.get("kind") if isinstance(document.value, dict) else None


def _with_kind(document: Document, findings: Findings) -> Document:
    if not isinstance(document.value, dict) or "kind" in document.value:
        return document
    findings.fault(document, (), "has no kind (expected kind: Configuration)", is_lenient=True)
    return replace(document, value={**document.value, "kind": "Configuration"})


def _holds_access(value: object) -> bool:
    if isinstance(value, dict):
        return any(
            key in {"accessControl", "defaultAction", "policies", "handlers"} or _holds_access(value[key])
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
    is_like = difflib.get_close_matches(last, _GUARDING, n=1, cutoff=0.6)
    return replace(fault, is_lenient=False) if is_like or _holds_access(value) else fault


class Resources(Struct):
    """Those with an effect, in load order."""

    resiliencies: list[tuple[Document, schema.Resiliency]] = field(default_factory=list)
    components: list[tuple[Document, schema.Component]] = field(default_factory=list)
    http_endpoints: list[tuple[Document, schema.HttpEndpoint]] = field(default_factory=list)
    access_policies: list[tuple[Document, own_schema.AccessPolicy]] = field(default_factory=list)
    traffics: list[tuple[Document, own_traffic.Traffic]] = field(default_factory=list)


def _resources(files: Iterable[Path], findings: Findings) -> Resources:
    found = Resources()
    unbuilt: Counter[str] = Counter()
    unbuilt_components: list[str] = []
    for path in files:
        for document in _read(path, None, findings) or ():
            kind = _kind(document)
            if kind == "Component" and not _is_middleware(document.value):
                unbuilt_components.append(_described(document.value))
            elif isinstance(kind, str) and kind in _UNBUILT_KINDS:
                unbuilt[kind] += 1
            elif not _take(document, kind, found, findings):
                _unknown_kind(document, kind, findings)
    if unbuilt_components:
        named = ", ".join(unbuilt_components)
        findings.remarks.append(f"components other than HTTP middleware have no effect in postern: {named}")
    for kind, count in sorted(unbuilt.items()):
        where = "is read from --config alone" if kind == "Configuration" else "has no effect in postern"
        findings.remarks.append(f"kind {kind} among the resources {where} ({count} found)")
    return found


def _take(document: Document, kind: object, into: Resources, findings: Findings) -> bool:
    """Check a document of a kind that has an effect, and keep it; false for another kind."""
    match kind:
        case "AccessPolicy":
            _checked(document, own_schema.AccessPolicy, into.access_policies, findings, is_guard=True)
        case "Component":
            _checked(document, schema.Component, into.components, findings)
        case "HTTPEndpoint":
            _checked(document, schema.HttpEndpoint, into.http_endpoints, findings)
        case "Resiliency":
            _checked(document, schema.Resiliency, into.resiliencies, findings)
        case "Traffic":
            _checked(document, own_traffic.Traffic, into.traffics, findings, is_guard=True)
        case _:
            return False
    return True


def _checked(
    document: Document,
    model: type[ModelT],
    into: list[tuple[Document, ModelT]],
    findings: Findings,
    *,
    is_guard: bool = False,
) -> None:
    """No fault of a guard is lenient: without the key that is unknown it may let in more than was meant."""
    made, faults = examine(document, model)
    findings.faults += [replace(fault, is_lenient=fault.is_lenient and not is_guard) for fault in faults]
    if made is not None:
        into.append((document, made))


def _is_middleware(component: object) -> bool:
    return _text(component, "spec", "type").lower().startswith(MIDDLEWARE)


def _described(component: object) -> str:
    name, kind = _text(component, "metadata", "name"), _text(component, "spec", "type")
    return f"{name or 'one without a name'} ({kind or 'no type'})"


def _text(document: object, section: str, key: str) -> str:
    """A text in a document that nobody has checked; empty where it is something else."""
    part = document.get(section) if isinstance(document, dict) else None
    value = part.get(key) if isinstance(part, dict) else None
    return value if isinstance(value, str) else ""


def _unknown_kind(document: Document, kind: object, findings: Findings) -> None:
    if not isinstance(kind, str):
        findings.fault(document, (), "has no kind (expected one such as Resiliency)", is_lenient=True)
        return
    close = difflib.get_close_matches(kind, [*_BUILT_KINDS, *_UNBUILT_KINDS], n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected {either(_BUILT_KINDS)}"
    findings.fault(document, ("kind",), f"{kind} is unknown ({hint})", is_lenient=True)
