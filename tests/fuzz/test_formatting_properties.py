"""`postern fmt` on documents of any shape: the meaning and every character stay, and a second time changes nothing."""

import string
from collections import Counter
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import DocumentError
from proxy.cli.formatting import UnformattableError, formatted

NAMES = (
    "kind",
    "spec",
    "metadata",
    "apps",
    "version",
    "policies",
    "timeouts",
    "name",
    "policy",
    "maxRetries",
    "rules",
)
KEYS = st.sampled_from([*NAMES, *"abc"])
TEXTS = st.one_of(
    st.text(string.ascii_letters + " #:-'\"\n{}[]|>é", max_size=30),
    st.sampled_from(["Resiliency", "Traffic", "Configuration", "2s", "yes", "|", "- a", "# no comment", ""]),
)


class Block(str):
    """A text that is written as a block."""


yaml.SafeDumper.add_representer(
    Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)
VALUES = st.recursive(
    st.one_of(TEXTS, TEXTS.map(Block), st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """YAML of some layout, with comments and blank lines where they mean nothing."""
    value: Any = draw(st.dictionaries(KEYS, VALUES, max_size=6))
    text: str = yaml.safe_dump(
        value,
        indent=draw(st.integers(2, 6)),
        width=draw(st.sampled_from([20, 80, 1_000])),
        default_flow_style=draw(st.sampled_from([False, None])),
        default_style=draw(st.sampled_from([None, None, '"'])),
        sort_keys=False,
        allow_unicode=True,
    )
    lines = text.split("\n")
    for number in range(draw(st.integers(0, 4))):
        extra = draw(st.sampled_from(["", " " * draw(st.integers(0, 8)) + f"# comment {number}"]))
        tried = list(lines)
        tried.insert(draw(st.integers(0, len(lines) - 1)), extra)
        try:
            if yaml.safe_load("\n".join(tried)) == value:
                lines = tried
        except (yaml.YAMLError, KeyError, ValueError):
            continue  # not there
    return "\n".join(lines)


@given(documents())
def test_formatted_document_means_the_same_and_stays_as_it_is(text: str) -> None:
    try:
        made = formatted(text)
    except (UnformattableError, DocumentError):  # a bare `N` is no text
        return
    assert yaml.safe_load(made) == yaml.safe_load(text)
    assert Counter("".join(made.split())) == Counter("".join(text.split()))
    assert formatted(made) == made
    assert not any(line != line.rstrip() for line in made.split("\n") if "|" not in made)


def test_most_documents_can_be_formatted() -> None:
    value = {
        "spec": {"b": [{"a": 1, "b": [1, {"c": None}]}, []], "kind": {}},
        "kind": "Traffic",
        "metadata": {},
    }
    for indent in (2, 4, 6):
        assert formatted(yaml.safe_dump(value, indent=indent)).startswith(
            "kind: Traffic\nmetadata: {}\nspec:\n"
        )
