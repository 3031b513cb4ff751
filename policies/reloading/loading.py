"""Where policies come from, the snapshot that is in force, and its replacement when a file changes.

A sidecar without files does not pay for YAML: it is imported when there is a document to read.
"""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from policies.errors import DocumentError, Fault
from policies.rules.access import AccessRules, Profile, without_policy
from policies.rules.access_policies import PolicyMode
from policies.rules.configuration import ConfigurationValues
from policies.rules.http_endpoints import HttpEndpoint
from policies.rules.pipelines import Pipelines
from policies.rules.resiliency import ResiliencyRules
from policies.rules.traffic import TrafficRules, unsaid_traffic

if TYPE_CHECKING:
    from policies.reading.compile_access import AccessContext

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int, int], ...]


class PolicySources(Struct, frozen=True, kw_only=True):
    """The files to read, and what their meaning depends on.

    `resources_paths` are folders. `own_trust_domain` None takes any verified trust domain for the own one, which is
    right while all identities come from one trust bundle. injects_faults: those of Traffic documents have an effect.
    """

    config_paths: tuple[Path, ...] = ()
    resources_paths: tuple[Path, ...] = ()
    own_app_id: str
    own_namespace: str
    app_protocol: str = "http"
    profile: Profile = "production"
    mtls: bool = True
    lenient: bool = False
    access_policy_mode: PolicyMode = "enforce"
    env: Mapping[str, str] = field(default_factory=dict)
    own_trust_domain: str | None = None
    is_trust_domain_given: bool = True
    injects_faults: bool = True

    @property
    def has_files(self) -> bool:
        """Whether there is anything to read, and to watch."""
        return bool(self.config_paths or self.resources_paths)


class PolicySnapshot(Struct, frozen=True, kw_only=True):
    """All rules in force at one time. `generation` counts the snapshots of one sidecar from 1. http_endpoints: by name.

    texts: the files that they are from, as they were, compressed with zlib: path and UTF-8.
    """

    generation: int
    access: AccessRules
    resiliency: ResiliencyRules
    configuration: ConfigurationValues
    warnings: tuple[str, ...]
    pipelines: Pipelines = Pipelines()
    http_endpoints: Mapping[str, HttpEndpoint] = {}
    traffic: TrafficRules = TrafficRules()
    fingerprint: Fingerprint = ()
    texts: tuple[tuple[str, bytes], ...] = ()


def load(sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
    """Read everything. Blocks on the disk. Raises: DocumentError with every fault of every file."""
    # Taken first: what changes while we read has another fingerprint afterwards, and is read again.
    fingerprint = fingerprint_of(sources)
    files, warnings = resource_files(sources.resources_paths)
    if not sources.config_paths and not files:
        access = without_policy(
            profile=sources.profile,
            own_app_id=sources.own_app_id,
            own_namespace=sources.own_namespace,
            own_trust_domain=sources.own_trust_domain,
            mtls=sources.mtls,
        )
        resiliency, configuration, pipelines = ResiliencyRules(), ConfigurationValues(), Pipelines()
        http_endpoints: Mapping[str, HttpEndpoint] = {}
        traffic = TrafficRules(default=unsaid_traffic(sources.profile))
    else:
        # ~150 ms of imports that a sidecar without files is spared.
        from policies.reading.assemble import assemble  # noqa: PLC0415

        made = assemble(
            sources.config_paths, files, access_context(sources), is_lenient=sources.lenient, env=sources.env
        )
        access, resiliency, configuration = made.access, made.resiliency, made.configuration
        pipelines, traffic = made.pipelines, made.traffic
        http_endpoints = made.http_endpoints
        warnings = (*warnings, *made.warnings)
    return PolicySnapshot(
        generation=generation,
        access=access,
        resiliency=replace(resiliency, is_as_daprd=sources.profile == "daprd"),
        configuration=configuration,
        warnings=warnings,
        pipelines=pipelines,
        http_endpoints=http_endpoints,
        traffic=traffic,
        fingerprint=fingerprint,
        texts=tuple((str(path.absolute()), _kept(path)) for path in (*sources.config_paths, *files)),
    )


def _kept(path: Path) -> bytes:
    """A file that was just read; empty where it is gone again, which is a change that is read next."""
    try:
        return zlib.compress(path.read_bytes(), 1)
    except OSError:
        return b""


def access_context(sources: PolicySources) -> "AccessContext":
    """What access rules are compiled for."""
    from policies.reading.compile_access import AccessContext  # noqa: PLC0415 - a sidecar without files is spared the import

    return AccessContext(
        own_app_id=sources.own_app_id,
        own_namespace=sources.own_namespace,
        own_trust_domain=sources.own_trust_domain,
        is_trust_domain_given=sources.is_trust_domain_given,
        app_protocol=sources.app_protocol,
        profile=sources.profile,
        mtls=sources.mtls,
        access_policy_mode=sources.access_policy_mode,
        injects_faults=sources.injects_faults,
    )


def resource_files(folders: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """What is read of folders: regular `.yaml` and `.yml` files directly in the folders, by name, and a warning for each other file."""
    files: list[Path] = []
    warnings: list[str] = []
    faults: list[Fault] = []
    for folder in folders:
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        except OSError as error:
            problem = f"can't be read: {error.strerror} (expected a folder of resources)"
            faults.append(Fault(path=folder, line=0, field="", problem=problem))
            continue
        for name in names:
            if name.endswith((".yaml", ".yml")):
                files.append(folder / name)
            else:
                warnings.append(f"{folder / name}: is not read (expected a name ending in .yaml or .yml)")
    if faults:
        raise DocumentError(faults)
    return tuple(files), tuple(warnings)


def fingerprint_of(sources: PolicySources) -> Fingerprint:
    """What changes when a file does. Links are followed: mounted volumes swap theirs."""
    paths = list(sources.config_paths)
    for folder in sources.resources_paths:
        try:
            paths += sorted(Path(entry.path) for entry in os.scandir(folder))
        except OSError:
            paths.append(folder)
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        return (str(path), -1, -1, -1, error.errno or 0)
    return (str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
