"""Which files are read, and what a snapshot of none costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.reloading.loading import PolicySources, load
from policies.rules.resiliency import ResiliencyRules
from tests.unit.policies.writing import OWN, A, acl, asker, sources

RESILIENCY = "kind: Resiliency\nspec: {targets: {apps: {a: {}}}}\n"


def test_load_without_files_does_not_import_yaml() -> None:
    code = (
        "import sys; from policies.reloading.loading import PolicySources, load;"
        "load(PolicySources(own_app_id='a', own_namespace='n', profile='dev'));"
        "print([m for m in ('yaml', 'policies.reading.schema') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


def test_load_without_files_has_the_posture_of_the_profile() -> None:
    snapshot = load(PolicySources(own_app_id="callee", own_namespace="default", profile="production"))
    assert [asker(snapshot)(caller, "GET", "/x").allowed for caller in (OWN, A)] == [True, False]
    assert (snapshot.generation, snapshot.resiliency, snapshot.warnings) == (1, ResiliencyRules(), ())


def test_resources_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = {
        "b.yml": "kind: Resiliency\nmetadata: {name: second}\n",
        "a.yaml": "kind: Resiliency\nmetadata: {name: first}\n",
        "c.txt": "not: [yaml",
    }
    made = sources(tmp_path, resources=files)
    (tmp_path / "resources" / "folder.yaml").mkdir()
    snapshot = load(made)
    assert [name for name, _ in snapshot.resiliency.resources] == ["first", "second"]
    assert [warning.partition("resources/")[2] for warning in snapshot.warnings] == [
        "c.txt: is not read (expected a name ending in .yaml or .yml)",
    ]


def test_kinds_without_effect_are_named_once_each(tmp_path: Path) -> None:
    files = {
        "a.yaml": "kind: Component\nmetadata: {name: store}\nspec: {type: state.redis}\n---\nkind: Component\n---\nkind: Subscription\n",
        "b.yaml": acl(g="deny"),
    }
    assert load(sources(tmp_path, resources=files)).warnings == (
        "components other than HTTP middleware have no effect in postern: store (state.redis), one without a name (no type)",
        "kind Configuration among the resources is read from --config alone (1 found)",
        "kind Subscription among the resources has no effect in postern (1 found)",
    )


@pytest.mark.parametrize(
    ("text", "fault", "is_forgiven"),
    [
        ("kind: Resilency\n", "did you mean Resiliency?", True),
        ("a: 1\n", "has no kind", True),
        ("- 1\n", "has no kind", True),
        ("kind: AccessPolicy\n", "apiVersion: is missing", False),
        ("kind: Resiliency\napiVersion: v2\n", "apiVersion", False),
        ("a: [\n", "is not valid YAML", False),
    ],
)
def test_resource_that_can_t_be_used_is_a_fault(
    tmp_path: Path, text: str, fault: str, is_forgiven: bool
) -> None:
    with pytest.raises(DocumentError) as caught:
        load(sources(tmp_path, resources={"a.yaml": text}))
    assert fault in str(caught.value)
    lenient = sources(tmp_path, resources={"a.yaml": text}, lenient=True)
    if is_forgiven:
        assert fault in "\n".join(load(lenient).warnings)
    else:
        with pytest.raises(DocumentError):
            load(lenient)


def test_missing_folder_and_file_are_faults(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="expected a folder of resources"):
        load(PolicySources(own_app_id="a", own_namespace="n", resources_paths=(tmp_path / "none",)))
    with pytest.raises(DocumentError, match="No such file"):
        load(PolicySources(own_app_id="a", own_namespace="n", config_paths=(tmp_path / "none.yaml",)))


def test_faults_of_all_files_are_told_together(tmp_path: Path) -> None:
    made = sources(
        tmp_path, "a: [", acl(g="x"), resources={"r.yaml": "kind: Resiliency\nspec: {polices: {}}\n"}
    )
    with pytest.raises(DocumentError) as caught:
        load(made)
    assert {fault.path.name for fault in caught.value.faults} == {"config1.yaml", "config2.yaml", "r.yaml"}


def test_environment_reaches_config_files_and_not_resources(tmp_path: Path) -> None:
    text = 'kind: Configuration\nspec: {tracing: {samplingRate: "$RATE"}}\n'
    snapshot = load(
        sources(
            tmp_path,
            text,
            resources={"r.yaml": RESILIENCY + "metadata: {name: $RATE}\n"},
            env={"RATE": "0.5"},
        ),
    )
    assert snapshot.configuration.tracing.sampling_rate == 0.5
    assert snapshot.resiliency.resources == (("$RATE", ""),)


def test_equal_files_give_equal_snapshots(tmp_path: Path) -> None:
    made = sources(tmp_path, acl(g="deny"), resources={"r.yaml": RESILIENCY})
    assert load(made) == load(made)
