"""Plain values to Structs: what each kind of annotation takes, and what is said of anything else."""

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from policies.reading.construct import Place
from policies.reading.validation import to_struct


class Part(Struct, frozen=True):
    label: str = ""


class Whole(Struct, frozen=True, rename="camel"):
    full_text: str = "none"
    flag: bool = False
    count: Annotated[int, Meta(ge=0, le=9)] = 1
    rows: Annotated[list[Part], Meta(min_length=1)] = []
    table: dict[str, int] = {}
    kind: Literal["a", "b"] = "a"
    either: list[str] | dict[str, str] | None = None
    plain: str | Part = ""
    anything: object = None


def made(value: object) -> tuple[Whole | None, dict[Place, str]]:
    faults: dict[Place, str] = {}

    def tell(place: Place, problem: str, is_lenient: bool) -> None:
        faults[place] = problem

    return to_struct(value, Whole, tell), faults


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, Whole()),
        ({"fullText": "x", "flag": True, "count": 9}, Whole(full_text="x", flag=True, count=9)),
        ({"fullText": 1.5}, Whole(full_text="1.5")),
        ({"rows": [{"label": 7}]}, Whole(rows=[Part(label="7")])),
        ({"table": {"k": 2}, "kind": "b"}, Whole(table={"k": 2}, kind="b")),
        ({"either": ["x"], "plain": {"label": "y"}}, Whole(either=["x"], plain=Part(label="y"))),
        ({"either": {"x": "y"}, "plain": 3}, Whole(either={"x": "y"}, plain="3")),
        ({"either": None, "anything": [1, {"a": None}]}, Whole(anything=[1, {"a": None}])),
    ],
)
def test_values_that_fit(value: object, expected: Whole) -> None:
    assert made(value) == (expected, {})


@pytest.mark.parametrize(
    ("value", "place", "problem"),
    [
        (5, (), "is not a mapping"),
        ({"fullText": None}, ("fullText",), "has no value"),
        ({"fullText": True}, ("fullText",), "boolean, not text"),
        ({"fullText": []}, ("fullText",), "is not text"),
        ({"flag": "true"}, ("flag",), "is not a boolean"),
        ({"flag": 1}, ("flag",), "is not a boolean"),
        ({"count": True}, ("count",), "is not a whole number"),
        ({"count": "1"}, ("count",), "is not a whole number"),
        ({"count": 10}, ("count",), "10 is out of range (expected at most 9)"),
        ({"count": -1}, ("count",), "-1 is out of range (expected at least 0)"),
        ({"rows": {}}, ("rows",), "is not a list"),
        ({"rows": []}, ("rows",), "is too short (expected one entry at least)"),
        ({"rows": [{}, 1]}, ("rows", 1), "is not a mapping"),
        ({"table": []}, ("table",), "is not a mapping"),
        ({"table": {"k": "x"}}, ("table", "k"), "is not a whole number"),
        ({"kind": "c"}, ("kind",), "`c` is unknown (expected a or b)"),
        ({"kind": {}}, ("kind",), "is unknown"),
        ({"either": 1}, ("either",), "is not a list"),
        ({"plain": []}, ("plain",), "is not text"),
        ({"full_text": "x"}, ("full_text",), "unknown key (did you mean fullText?)"),
    ],
)
def test_values_that_do_not_fit(value: object, place: Place, problem: str) -> None:
    _, faults = made(value)
    assert list(faults) == [place]
    assert problem in faults[place]
