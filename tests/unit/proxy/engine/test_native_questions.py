"""What crosses from Rust is known here by kind, and an unknown kind says so; where the extension was built."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

native = pytest.importorskip("proxy.engine.native._native")

from proxy.engine.native import questions, reports  # noqa: E402 - they load the extension


def _cases(function: Callable[..., object]) -> set[str]:
    """The first words of a function's cases."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    patterns = [node.patterns[0] for node in ast.walk(tree) if isinstance(node, ast.MatchSequence)]
    return {
        str(ast.literal_eval(pattern.value)) for pattern in patterns if isinstance(pattern, ast.MatchValue)
    }


def _stubbed(name: str) -> set[str]:
    """The kinds in an alias of the stub, which mypy holds the cases to."""
    stub = ast.parse(Path(questions.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
    (alias,) = [
        node for node in stub.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return {
        str(ast.literal_eval(node.slice))
        for node in ast.walk(alias.value)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
    }


def test_every_kind_that_rust_sends_has_a_case_and_a_type() -> None:
    assert set(native.question_kinds) == _cases(questions.Answers.answer) == _stubbed("Asked")
    assert set(native.news_kinds) == _cases(reports.Reports.tell_one) == _stubbed("News")
    assert set(native.notice_kinds) == _cases(reports.tell_notice) == _stubbed("Notice")


def test_kind_that_is_unknown_is_an_error_that_names_it_and_nothing_of_the_call() -> None:
    answers = object.__new__(questions.Answers)
    with pytest.raises(TypeError, match=r"'weather'.*one build") as refused:
        answers.answer(("weather", (b"secret",), None))  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)
