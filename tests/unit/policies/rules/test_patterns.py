"""Regular expressions in Dapr's dialect."""

import sys

import pytest

from policies.rules.patterns import MAX_PATTERN_BYTES, Pattern, PatternError


def test_pattern_is_found_anywhere() -> None:
    pytest.importorskip("re2")
    assert Pattern("b+").finds("abbc")
    assert not Pattern("^b").finds("abbc")


@pytest.mark.parametrize("text", ["(", "(?=x)", r"(a)\1", "a" * (MAX_PATTERN_BYTES + 1)])
def test_what_re2_does_not_know_is_refused(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("re2")
    with pytest.raises(PatternError):
        Pattern(text)
    assert capfd.readouterr().err == ""


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(PatternError, match="extra `re2`"):
        Pattern("a")
