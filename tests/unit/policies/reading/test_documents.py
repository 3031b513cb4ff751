"""YAML with places, variables, and the faults of both."""

from pathlib import Path

import pytest
from msgspec import Struct

from policies.errors import DocumentError
from policies.reading.documents import Document, examine, format_place, read_documents, validate


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "doc.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, env: dict[str, str] | None = None) -> tuple[Document, ...]:
    return read_documents(write(folder, text), env)


def faults_of(folder: Path, text: str | bytes, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(folder, text, env)
    return [str(fault).removeprefix(str(folder) + "/") for fault in caught.value.faults]


def test_every_field_has_its_line(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "a: 1\nb:\n  - c: 2\n    d: x\n")
    assert document.value == {"a": 1, "b": [{"c": 2, "d": "x"}]}
    assert document.line_of(("b", 0, "d")) == 4
    assert document.line_of(("b", 0, "missing")) == 3
    assert format_place(("b", 0, "d")) == "b[0].d"


def test_all_documents_but_the_empty_ones_are_read(tmp_path: Path) -> None:
    assert [d.value for d in read(tmp_path, "---\na: 1\n---\n---\nb: 2\n---\n# end\n")] == [
        {"a": 1},
        {"b": 2},
    ]
    assert [d.line for d in read(tmp_path, "---\na: 1\n---\nb: 2\n")] == [2, 4]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("true", True),
        ("no", False),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("'yes'", "yes"),
        ("1h30m", "1h30m"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_are_plain_values(tmp_path: Path, text: str, value: object) -> None:
    (document,) = read(tmp_path, f"a: {text}\n")
    assert document.value == {"a": value}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2\n", "doc.yaml:2:1: a: is given twice (first on line 1)"),
        ("a:\n  y: 1\n", 'doc.yaml:2:3: a.y: is a YAML boolean, not a name (expected "y" in quotes)'),
        ("no: 1\n", 'doc.yaml:1:1: no: is a YAML boolean, not a name (expected "no" in quotes)'),
        ("a: y\n", 'doc.yaml:1:4: a: `y` is a boolean to YAML 1.1 readers (expected "y" in quotes)'),
        (
            "a: 010\n",
            "doc.yaml:1:4: a: 010 is an octal, binary or base-60 number to YAML (expected it in quotes)",
        ),
        (
            "a: 1:30\n",
            "doc.yaml:1:4: a: 1:30 is an octal, binary or base-60 number to YAML (expected it in quotes)",
        ),
        ("a: !!python/name:os.system x\n", "has the tag"),
        ("[a]: 1\n", "has a key that is not text"),
        ("a: [1\nb: 2\n", "doc.yaml:2:2: is not valid YAML"),
        ("a: &x\n  <<: *x\n", "<< takes a mapping"),
        ("a: &x [*x]\n", "too deep or too large"),
        (b"a: \xff\n", "doc.yaml:1:4: is not UTF-8 text"),
        ("a: \0\n", "is not valid YAML"),
        ("[" * 100 + "]" * 100, "too deep or too large"),
        *((text * 200_000, "doc.yaml:1:") for text in ("[", "- ", "? ", "{a: ", "&a [")),
    ],
)
def test_misleading_yaml_is_a_fault_with_its_place(tmp_path: Path, text: str | bytes, fault: str) -> None:
    assert any(fault in line for line in faults_of(tmp_path, text))


def test_aliases_can_t_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert len(faults_of(tmp_path, "\n".join(lines))) == 1


def test_merge_keys_give_what_is_not_written(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "base: &b {x: 1, y_: 2}\nuse:\n  <<: *b\n  x: 3\n")
    assert document.value == {"base": {"x": 1, "y_": 2}, "use": {"x": 3, "y_": 2}}


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    assert len(faults_of(tmp_path, "a: 1\na: 2\nb: 010\nc: ${UNSET}\n", {})) == 3


def test_missing_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.yaml: can't be read: No such file"):
        read_documents(tmp_path / "none.yaml", {})


def test_oversized_file_is_a_fault(tmp_path: Path) -> None:
    assert "is too large" in faults_of(tmp_path, b"a: " + b"x" * (4 * 1024 * 1024))[0]


def test_variables_are_replaced_before_yaml_is_read(tmp_path: Path) -> None:
    text = "a: $A\nb: x${B}y\nc: $$A\nd: 5$\n# $UNSET ${also unset}\n"
    (document,) = read(tmp_path, text, {"A": "1", "B": "-"})
    assert document.value == {"a": 1, "b": "x-y", "c": "$A", "d": "5$"}


def test_variables_stay_where_no_environment_is_given(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "a: $A$$\n", None)
    assert document.value == {"a": "$A$$"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("b: 1\na: x$NONE\n", "doc.yaml:2:5: variable NONE is not set"),
        ("a: ${NONE}\n", "doc.yaml:1:4: variable NONE is not set"),
        ("a: ${X:-y}\n", "${X:-y} is not a variable"),
        ("a: $5\n", "$5 is not a variable"),
        ("$NONE: 1\n", "doc.yaml:1:1: variable NONE is not set"),
        ("a: $LINES\n", "holds a line break"),
    ],
)
def test_variable_without_a_usable_value_is_a_fault(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in faults_of(tmp_path, text, {"LINES": "x\ny: 1"})[0]


class Inner(Struct, frozen=True):
    size: int = 0
    label: str = ""


class Outer(Struct):
    name: str
    inner: Inner = Inner()
    many: dict[str, Inner] = {}
    rows: list[Inner] = []


def test_validate_returns_the_model(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "name: x\nrows: [{size: 1}]\n")
    assert validate(document, Outer).rows[0].size == 1


def test_validate_tells_every_fault_with_line_and_suggestion(tmp_path: Path) -> None:
    (document,) = read(
        tmp_path,
        "nmae: x\ninner:\n  siez: 1\nmany:\n  k:\n    lable: z\n  m:\nrows:\n  - wat: 1\n  - label: on\n",
    )
    with pytest.raises(DocumentError) as caught:
        validate(document, Outer)
    assert {(fault.line, fault.field, fault.problem) for fault in caught.value.faults} == {
        (1, "name", "is missing"),
        (1, "nmae", "unknown key (did you mean name?)"),
        (3, "inner.siez", "unknown key (did you mean size?)"),
        (6, "many.k.lable", "unknown key (did you mean label?)"),
        (7, "many.m", "has no value (expected one, or leave the key out)"),
        (9, "rows[0].wat", "unknown key (expected label, size)"),
        (10, "rows[1].label", "is a YAML boolean, not text (expected it in quotes)"),
    }


def test_examine_forgives_unknown_keys_alone(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "name: x\nextra: 1\ninner: {size: 2, more: 3}\nrows: [{size: 1, e: 2}]\n")
    model, faults = examine(document, Outer)
    assert model is not None
    assert model.inner.size == 2
    assert [fault.is_lenient for fault in faults] == [True] * 3


def test_examine_gives_no_model_with_other_faults(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "name: x\ninner: 5\nextra: 1\n")
    model, faults = examine(document, Outer)
    assert model is None
    assert {fault.problem for fault in faults if not fault.is_lenient} == {
        "is not a mapping (expected key: value lines)",
    }


@pytest.mark.parametrize("written", ["3.10", "1e3", "0x10", "+5", "07.0", "12"])
def test_number_where_text_is_wanted_stays_as_written(tmp_path: Path, written: str) -> None:
    class Named(Struct, frozen=True, kw_only=True):
        name: str

    (document,) = read(tmp_path, f"name: {written}\n")
    assert validate(document, Named).name == written


@pytest.mark.parametrize(("written", "value"), [("0x10", 16), ("+5", 5), ("12", 12)])
def test_number_where_a_number_is_wanted_is_a_plain_one(tmp_path: Path, written: str, value: int) -> None:
    class Counted(Struct, frozen=True, kw_only=True):
        count: int

    (document,) = read(tmp_path, f"count: {written}\n")
    count = validate(document, Counted).count
    assert (count, type(count)) == (value, int)
