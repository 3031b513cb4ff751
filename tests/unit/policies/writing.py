"""Writes small policies for tests: the parts that a row of the decision table names, as a Configuration."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from policies.reloading.loading import PolicySnapshot, PolicySources, load
from policies.rules.access import AccessDecision, Operation, Profile
from policies.rules.caller import Caller

A = Caller(trust_domain="public", namespace="default", app_id="app1")
OWN = Caller(trust_domain="public", namespace="default", app_id="callee")

Json = Mapping[str, object]


def entry(
    *operations: Json,
    d: str | None = None,
    app: str = "app1",
    td: str = "public",
    ns: str = "default",
) -> dict[str, object]:
    """An entry of `policies`; `d` None leaves its defaultAction out."""
    made: dict[str, object] = {"appId": app, "trustDomain": td, "namespace": ns}
    if d is not None:
        made["defaultAction"] = d
    if operations:
        made["operations"] = list(operations)
    return made


def op(name: str, action: str | None, *verbs: str) -> dict[str, object]:
    """An operation; without verbs it has no httpVerb key."""
    made: dict[str, object] = {"name": name}
    if verbs:
        made["httpVerb"] = list(verbs)
    if action is not None:
        made["action"] = action
    return made


def acl(*entries: Json, g: str | None = None) -> str:
    """A Configuration with an accessControl; `g` None leaves its defaultAction out."""
    access: dict[str, object] = {}
    if g is not None:
        access["defaultAction"] = g
    if entries:
        access["policies"] = list(entries)
    return configuration({"accessControl": access})


def configuration(spec: Json) -> str:
    """A Configuration document. JSON is YAML, on one line a key."""
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Configuration",
        "metadata": {"name": "c"},
        "spec": spec,
    }
    return json.dumps(document, indent=1)


def sources(
    folder: Path, *texts: str, resources: Mapping[str, str] | None = None, **changes: object
) -> PolicySources:
    """Sources whose --config files hold `texts`, in order, and whose one resources folder holds `resources`."""
    paths: list[Path] = []
    for number, text in enumerate(texts, 1):
        paths.append(folder / f"config{number}.yaml")
        paths[-1].write_text(text, encoding="utf-8")
    folders: tuple[Path, ...] = ()
    if resources is not None:
        folders = (folder / "resources",)
        folders[0].mkdir(exist_ok=True)
        for name, text in resources.items():
            (folders[0] / name).write_text(text, encoding="utf-8")
    settings: dict[str, object] = {
        "own_app_id": OWN.app_id,
        "own_namespace": OWN.namespace,
        "profile": "daprd",
    }
    return PolicySources(config_paths=tuple(paths), resources_paths=folders, **(settings | changes))  # type: ignore[arg-type]


def loaded(
    folder: Path,
    *texts: str,
    is_grpc: bool = False,
    lenient: bool = False,
    mtls: bool = True,
    profile: Profile = "daprd",
) -> PolicySnapshot:
    """The snapshot of one or more --config texts."""
    protocol = "grpc" if is_grpc else "http"
    return load(
        sources(folder, *texts, app_protocol=protocol, lenient=lenient, mtls=mtls, profile=profile, env={}),
    )


def asker(
    snapshot: PolicySnapshot, *, is_grpc: bool = False
) -> Callable[[Caller | None, str, str], AccessDecision]:
    """(caller, verb, path) -> decision."""

    def ask(caller: Caller | None, verb: str, path: str) -> AccessDecision:
        protocol = "grpc" if is_grpc else "http"
        return snapshot.access.evaluate(caller, Operation(protocol=protocol, verb=verb, path=path))  # type: ignore[arg-type]

    return ask
