"""Policies read in a process of their own say what reading them here says."""

import os
from pathlib import Path

import pytest

from policies.apart import Loading, load_apart
from policies.child import Child
from policies.errors import DocumentError
from policies.loading import PolicySources, load

POLICY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  tracing: {samplingRate: "0.5"}
  accessControl:
    defaultAction: deny
    policies:
      - appId: web
        trustDomain: public
        namespace: default
        defaultAction: deny
        operations: [{name: /a/**, httpVerb: [GET], action: allow}, {name: /a/b*, httpVerb: ["*"], action: deny}]
"""


def _sources(tmp_path: Path, text: str | None) -> PolicySources:
    paths: tuple[Path, ...] = ()
    if text is not None:
        paths = (tmp_path / "policy.yaml",)
        paths[0].write_text(text)
    return PolicySources(
        config_paths=paths, own_app_id="cart", own_namespace="default", own_trust_domain="public"
    )


def test_snapshot_crosses_whole(tmp_path: Path) -> None:
    sources = _sources(tmp_path, POLICY)
    assert load_apart(sources, generation=3) == load(sources, generation=3)


def test_every_fault_crosses_with_its_place(tmp_path: Path) -> None:
    sources = _sources(tmp_path, POLICY.replace("defaultAction: deny", "defaultAction: dany"))
    with pytest.raises(DocumentError) as here:
        load(sources)
    with pytest.raises(DocumentError) as apart:
        Loading(sources).finish()
    assert apart.value.faults == here.value.faults
    assert len(apart.value.faults) == 2


def test_reader_may_be_nicer_than_we() -> None:
    child = Child(niceness=10)
    try:
        ranks = [os.getpriority(os.PRIO_PROCESS, process) for process in (0, child.pid)]
    finally:
        child.close()
    assert ranks[1] == min(ranks[0] + 10, 19)


def test_without_files_nothing_is_started(tmp_path: Path) -> None:
    sources = _sources(tmp_path, None)
    assert load_apart(sources) == load(sources)
