"""What users write of the access log's form."""

import pytest

from telemetry.line_form import KEYS, parse_form, text_of


def test_all_keys_are_there_unless_others_are_asked_for() -> None:
    assert text_of(parse_form("json")) == ",".join(KEYS)
    assert text_of(parse_form("status, method", ("X-Request-Id",))) == "status,verb,header:x-request-id"


def test_template_keeps_what_stands_between_its_keys() -> None:
    form = parse_form("{{{method}}} {path} -> {status} {header:User-Agent}")
    assert (form.is_json, text_of(form)) == (False, "{{{verb}}} {path} -> {status} {header:user-agent}")


@pytest.mark.parametrize(
    ("text", "headers", "said"),
    [
        ("colour", (), "'colour' is not a key of a line"),
        ("{colour}", (), "'colour' is not a key of a line"),
        ("{verb", (), "written twice: {{"),
        ("verb} {path}", (), "written twice: }}"),
        ("{verb}\n", (), "control characters"),
        ("{verb}", ("accept",), "{header:name}"),
        ("json", ("Authorization",), "authorization may hold secrets"),
        ("{header:Cookie}", (), "cookie may hold secrets"),
        ("json", ("a b",), "'a b' is not the name of a header"),
    ],
)
def test_form_that_can_not_be_used_is_told(text: str, headers: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_form(text, headers)
