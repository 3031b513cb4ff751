from __future__ import annotations

import pytest

from nameresolution.errors import ComponentConfigurationError
from nameresolution.fields import Fields


def test_keys_are_read_in_any_case_and_by_their_aliases() -> None:
    fields = Fields("x", {"TIMEOUTINSECONDS": 3}, ("timeout",), aliases={"timeoutInSeconds": "timeout"})
    assert fields.seconds("timeout", 1.0) == 3.0
    assert fields.rest() == {"timeout": 3}


@pytest.mark.parametrize(
    ("value", "seconds"), [("5s", 5.0), ("1m30s", 90.0), (7, 7.0), ("7", 7.0), (None, 1.0), ("", 1.0)]
)
def test_duration_is_gos_or_seconds(value: object, seconds: float) -> None:
    assert Fields("x", {"timeout": value}, ("timeout",)).seconds("timeout", 1.0) == seconds


@pytest.mark.parametrize("value", ["soon", "-1s", True, [], 1.5])
def test_duration_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ComponentConfigurationError, match=r"within\.timeout: expected"):
        Fields("x", {"timeout": value}, ("timeout",), within="within.").seconds("timeout", 1.0)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), ("yes", True), ("ON", True), (0, False), ("", False)]
)
def test_switch_is_a_boolean_or_a_word(value: object, *, expected: bool) -> None:
    assert Fields("x", {"on": value}, ("on",)).switch("on") is expected


def test_switch_of_another_word_is_refused() -> None:
    with pytest.raises(ComponentConfigurationError, match="expected true or false, got 'perhaps'"):
        Fields("x", {"on": "perhaps"}, ("on",)).switch("on")


def test_what_is_no_map_or_no_text_is_refused() -> None:
    with pytest.raises(ComponentConfigurationError, match="expected a map, got"):
        Fields("x", ["a"], ())
    with pytest.raises(ComponentConfigurationError, match="expected a string, got"):
        Fields("x", {"a": []}, ("a",)).text("a")
    with pytest.raises(ComponentConfigurationError, match="b: is unknown, expected a"):
        Fields("x", {"b": 1}, ("a",))
