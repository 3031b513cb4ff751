"""Which APIs `spec.api` closes, and what is wrong with a list."""

from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.rules.api_lists import ApiLists, version_of
from tests.unit.policies.writing import Json, configuration, loaded


def rule(name: str, protocol: str = "http", version: str = "v1.0") -> Json:
    return {"name": name, "version": version, "protocol": protocol}


def lists(folder: Path, *, allowed: tuple[Json, ...] = (), denied: tuple[Json, ...] = ()) -> ApiLists:
    spec = {"api": {"allowed": list(allowed), "denied": list(denied)}}
    return loaded(folder, configuration(spec)).configuration.api


def test_nothing_is_closed_without_rules(tmp_path: Path) -> None:
    none = lists(tmp_path)
    assert not none.is_closed("http", "metadata")
    assert not none.is_closed("grpc", "invoke")


@pytest.mark.parametrize("version", ["v1.0", "v1"])
def test_one_allowed_rule_closes_all_else_of_its_protocol(tmp_path: Path, version: str) -> None:
    found = lists(tmp_path, allowed=(rule("invoke", version=version),))
    closed = {
        api
        for api in ("invoke/{app-id}/method/*", "metadata", "shutdown", "state")
        if found.is_closed("http", api)
    }
    assert closed == {"metadata", "shutdown", "state"}
    assert not found.is_closed("grpc", "metadata")


def test_denied_wins_over_allowed(tmp_path: Path) -> None:
    found = lists(tmp_path, allowed=(rule("metadata"),), denied=(rule("metadata/{key}"),))
    assert not found.is_closed("http", "metadata")
    assert found.is_closed("http", "metadata/{key}")


def test_grpc_has_names_alone(tmp_path: Path) -> None:
    found = lists(tmp_path, denied=(rule("invoke", "gRPC", "v1"),))
    assert found.is_closed("grpc", "invoke")
    assert not found.is_closed("grpc", "metadata")
    assert not found.is_closed("http", "invoke/{app-id}/method/*")


def test_rule_for_another_version_is_about_no_api_of_ours(tmp_path: Path) -> None:
    found = lists(
        tmp_path,
        allowed=(rule("state", version="v1.0-alpha1"),),
        denied=(rule("metadata", version="v1beta1"),),
    )
    assert found.is_closed("http", "metadata")  # as not allowed
    assert not lists(tmp_path, denied=(rule("metadata", version="v1beta1"),)).is_closed("http", "metadata")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (rule("invok"), "spec.api.denied[1].name: `invok` is not an API of Dapr's (did you mean invoke?)"),
        (
            rule("metadata/{key}", "grpc"),
            "spec.api.denied[1].name: `metadata/{key}` is not an API of Dapr's (did you mean metadata?)",
        ),
        (rule("invoke", "tcp"), "spec.api.denied[1].protocol: `tcp` is unknown (expected http or grpc)"),
        (
            rule("invoke", version="1"),
            "spec.api.denied[1].version: `1` is not a version (expected v1, v1.0 or one such as v1alpha1)",
        ),
        ({"name": "invoke", "version": "v1"}, "spec.api.denied[1].protocol: "),
    ],
)
def test_rule_that_says_nothing_is_a_fault_at_its_place(tmp_path: Path, wrong: Json, told: str) -> None:
    with pytest.raises(DocumentError) as caught:
        lists(tmp_path, denied=(rule("shutdown"), wrong))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1", "v1"),
        ("v1.0", "v1"),
        ("v1alpha1", "v1alpha1"),
        ("v1.0-alpha2", "v1alpha2"),
        ("v2", None),
        ("", None),
    ],
)
def test_versions_have_two_spellings(text: str, version: str | None) -> None:
    assert version_of(text) == version
