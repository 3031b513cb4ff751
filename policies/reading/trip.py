"""Reads the `trip` of a circuit breaker: CEL's numbers, booleans and operators over the breaker's counters, `int()` and `double()`.

A library would run the expression in Python only; an engine in Rust has to run it too, per failed call, so it is compiled here, once, to
the program that `policies/rules/trip.py` describes. CEL's strings, lists, maps and macros have nothing to say of five numbers.

Source: CEL's language definition (github.com/google/cel-spec, doc/langdef.md): syntax, and arithmetic of int and double.
"""

import re
from typing import Literal, NamedTuple

from policies.rules.trip import COUNTERS, NEVER, Program, Step

MAX_PARTS = 200  # numbers, names and signs of an expression
_MAX_DEPTH = 30  # of brackets and conditions in each other
_MAX_INT = 2**63
_Type = Literal["int", "double", "bool"]
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<double>(?:\d+\.\d+|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:()])""",
    re.VERBOSE | re.ASCII,
)
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod"}
_ORDER = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_EQUALITY = {"==": "eq", "!=": "ne"}
_LOGIC = {"&&": "and", "||": "or"}
#: Operators of two sides from the loosest to the tightest.
_LEVELS = (("||",), ("&&",), (*_ORDER, *_EQUALITY), ("+", "-"), ("*", "/", "%"))


class TripError(ValueError):
    """An expression that can't be used. column: counted from 1. is_syntax: it is not CEL; else CEL would fail when it is run."""

    def __init__(self, problem: str, column: int, *, is_syntax: bool = False) -> None:
        super().__init__(f"{problem} (column {column})")
        self.is_syntax = is_syntax


class _Token(NamedTuple):
    kind: str  # int, double, name, sign or end
    text: str
    column: int


class _Node(NamedTuple):
    """A part of an expression: an operator or function with its operands, or a literal or name without."""

    token: _Token
    parts: "tuple[_Node, ...]" = ()


def compile_trip(text: str) -> Program:
    """The program of an expression; raises TripError."""
    kind, program = _compiled(_Parser(_tokens(text)).whole())
    if kind != "bool":
        raise TripError(f"is of type {kind}, not a condition such as `consecutiveFailures > 5`", 1)
    return program


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise TripError(f"{text[at]!r} has no place in a trip", at + 1, is_syntax=True)
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(_Token(kind, match.group(), at + 1))
        if len(found) > MAX_PARTS:
            raise TripError(f"has more than {MAX_PARTS} numbers, names and signs", at + 1, is_syntax=True)
        at = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


class _Parser:
    """Mutable state: which token is next, and how deep in brackets and operators it is."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> _Node:
        """All of it."""
        node = self._condition()
        if self._next.kind != "end":
            raise self._unexpected("an operator or the end")
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *texts: str) -> _Token | None:
        token = self._next
        if token.kind != "sign" or token.text not in texts:
            return None
        self._at += 1
        return token

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._unexpected(f"`{text}`")

    def _unexpected(self, wanted: str) -> TripError:
        token = self._next
        found = f"`{token.text}`" if token.text else "the end"
        return TripError(f"has {found} where {wanted} is expected", token.column, is_syntax=True)

    def _condition(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TripError("has too many brackets in each other", self._next.column, is_syntax=True)
        node = self._operators(0)
        token = self._take("?")
        if token is not None:
            this = self._operators(0)
            self._need(":")
            node = _Node(token, (node, this, self._condition()))
        self._depth -= 1
        return node

    def _operators(self, level: int) -> _Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._operators(level + 1)
        while (token := self._take(*_LEVELS[level])) is not None:
            node = _Node(token, (node, self._operators(level + 1)))
        return node

    def _unary(self) -> _Node:
        signs: list[_Token] = []
        while (sign := self._take("-", "!")) is not None:
            signs.append(sign)
        is_literal = self._next.kind in ("int", "double")
        node = self._primary()
        if is_literal and signs and signs[-1].text == "-":
            sign = signs.pop()  # a literal has its sign: the least int has no positive
            node = _Node(_Token(node.token.kind, f"-{node.token.text}", sign.column))
        for sign in reversed(signs):
            node = _Node(sign, (node,))
        return node

    def _primary(self) -> _Node:
        token = self._next
        if self._take("(") is not None:
            node = self._condition()
            self._need(")")
            return node
        if token.kind in ("end", "sign"):
            raise self._unexpected("a number or a counter")
        self._at += 1
        if token.kind == "name" and self._take("(") is not None:
            node = self._condition()
            self._need(")")
            return _Node(token, (node,))
        return _Node(token)


def _compiled(node: _Node) -> tuple[_Type, Program]:
    """The type of a part and its program."""
    token = node.token
    if not node.parts:
        return _LEAVES[token.kind](token)
    parts = [_compiled(part) for part in node.parts]
    if token.kind == "name":
        return _converted(token, *parts[0])
    if len(parts) == 1:
        kind, program = parts[0]
        is_fit = kind == "bool" if token.text == "!" else kind != "bool"
        if not is_fit:
            raise TripError(f"`{token.text}` can't be put before {_a(kind)}", token.column)
        return kind, (*program, ("not" if token.text == "!" else "neg", 0))
    if len(parts) == 3:
        return _branched(token, *parts)
    return _combined(token, *parts)


def _a(kind: _Type) -> str:
    return f"an {kind}" if kind == "int" else f"a {kind}"


def _combined(
    token: _Token, left: tuple[_Type, Program], right: tuple[_Type, Program]
) -> tuple[_Type, Program]:
    text, kinds = token.text, {left[0], right[0]}
    both = f"`{text}` can't combine {left[0]} and {right[0]}"
    if text in _LOGIC:
        if kinds != {"bool"}:
            raise TripError(both, token.column)
        return "bool", (*left[1], *right[1], (_LOGIC[text], 0))
    if text in _ARITHMETIC:
        if len(kinds) > 1 or "bool" in kinds or (text == "%" and "double" in kinds):
            advice = ": put double(…) or int(…) round one side" if kinds == {"int", "double"} else ""
            raise TripError(both + advice, token.column)
        return left[0], (*left[1], *right[1], (_ARITHMETIC[text], 0))
    if "bool" in kinds and (len(kinds) > 1 or text in _ORDER):
        raise TripError(both, token.column)
    sides = [
        (*side, _TO_DOUBLE) if len(kinds) > 1 and kind == "int" else side for kind, side in (left, right)
    ]
    return "bool", (*sides[0], *sides[1], ((_ORDER | _EQUALITY)[text], 0))


def _branched(
    token: _Token, condition: tuple[_Type, Program], this: tuple[_Type, Program], that: tuple[_Type, Program]
) -> tuple[_Type, Program]:
    if condition[0] != "bool":
        raise TripError(f"`?` needs a condition before it, not {_a(condition[0])}", token.column)
    if this[0] != that[0]:
        raise TripError(f"`?` has {_a(this[0])} on one side and {_a(that[0])} on the other", token.column)
    return this[0], (*condition[1], *this[1], *that[1], ("if", 0))


def _converted(token: _Token, kind: _Type, program: Program) -> tuple[_Type, Program]:
    if token.text not in ("int", "double"):
        raise TripError(f"unknown function `{token.text}` (expected int or double)", token.column)
    if kind == "bool":
        raise TripError(f"`{token.text}` takes a number, not a bool", token.column)
    to: _Type = "int" if token.text == "int" else "double"
    return to, program if kind == to else (*program, _TO_DOUBLE if to == "double" else ("to-int", 0))


def _int(token: _Token) -> tuple[_Type, Program]:
    number = int(token.text, 16 if "x" in token.text.lower() else 10)
    if not -_MAX_INT <= number < _MAX_INT:
        raise TripError(f"`{token.text}` does not fit into 64 bits", token.column, is_syntax=True)
    return "int", (("int", number),)


def _double(token: _Token) -> tuple[_Type, Program]:
    return "double", (("double", float(token.text)),)


def _name(token: _Token) -> tuple[_Type, Program]:
    if token.text in ("true", "false"):
        return "bool", (("bool", 1),) if token.text == "true" else NEVER
    if token.text not in COUNTERS:
        raise TripError(f"unknown name {token.text!r} (expected {', '.join(COUNTERS)})", token.column)
    return "int", (("counter", COUNTERS.index(token.text)),)


_LEAVES = {"int": _int, "double": _double, "name": _name}
_TO_DOUBLE: Step = ("to-double", 0)
