"""Everything that is wrong with documents that are read together, as the sidecar of each app reads them; nothing is put in force."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from policies.analysis import questionable
from policies.analysis.codes import SEVERITIES, Finding, classify
from policies.errors import Fault
from policies.reading.assemble import Resources, compile_documents, read
from policies.reading.compile_access import AccessContext
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.reading.schema import Configuration


class Together(Struct, frozen=True, kw_only=True):
    """Documents that one sidecar reads. known: the apps of its run file, by which names are judged; empty where there is none."""

    config_paths: tuple[Path, ...]
    resource_files: tuple[Path, ...]
    context: AccessContext
    env: Mapping[str, str]
    known: frozenset[str] = frozenset()


def review(sets: Sequence[Together]) -> tuple[Finding, ...]:
    """What is wrong, each once, by file and line. Blocks on the disk.

    That a policy or component is not used is told only where no set that holds its file uses it.
    """
    told = [(each, tuple(_one(each))) for each in sets]
    everything = {finding for _, findings in told for finding in findings}
    kept = (
        finding
        for finding in everything
        if not is_about_use(finding)
        or all(finding in findings for each, findings in told if finding.fault.path in _files(each))
    )
    return ordered(kept)


def ordered(found: "Iterator[Finding] | Sequence[Finding]") -> tuple[Finding, ...]:
    """By file, line and weight."""
    return tuple(
        sorted(
            found,
            key=lambda each: (
                str(each.fault.path),
                each.fault.line,
                -SEVERITIES.index(each.severity),
                each.code,
                each.fault.field,
                each.fault.problem,
            ),
        )
    )


def is_about_use(finding: Finding) -> bool:
    """Whether it may be right for one sidecar and wrong for another."""
    return finding.code == "PST0202" or "is in no pipeline" in finding.fault.problem


def _files(each: Together) -> tuple[Path, ...]:
    return (*each.config_paths, *each.resource_files)


def _one(each: Together) -> Iterator[Finding]:
    findings = Findings()
    configurations, resources = read(each.config_paths, each.resource_files, each.env, findings)
    compile_documents(configurations, resources, each.context, each.env, findings)
    yield from (classify(fault, is_warning=False) for fault in findings.faults)
    yield from (classify(fault, is_warning=True) for fault in findings.notes)
    for text in findings.remarks:
        where = (*each.resource_files, *each.config_paths, Path())[0].parent
        yield classify(Fault(path=where, line=0, field="", problem=text), is_warning=True)
    yield from _questionable(configurations, resources, each)


def _questionable(
    configurations: Sequence[tuple[Document, Configuration]], resources: Resources, each: Together
) -> Iterator[Finding]:
    yield from questionable.unused_policies(resources.resiliencies)
    yield from questionable.eager_retries(resources.resiliencies)
    for document, configuration in configurations:
        yield from questionable.open_callers(document, configuration)
        yield from questionable.idle_tracing(document, configuration)
    for document, policy in resources.access_policies:
        yield from questionable.open_policies(document, policy)
    if each.known:
        outside = {endpoint.metadata.name for _, endpoint in resources.http_endpoints}
        yield from questionable.strange_targets(resources.resiliencies, each.known | outside)
        yield from questionable.strange_targets(resources.traffics, each.known | outside)
        for document, configuration in configurations:
            yield from questionable.strange_callers(document, configuration, each.known)
