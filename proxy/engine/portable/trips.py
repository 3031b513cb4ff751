"""The machine that runs a circuit breaker's `trip`; its programs are described in `policies/rules/trip.py`.

Kept in step with `crates/core/src/call/trips.rs` by `tests/vectors/breakers.json`.
"""

import math
import operator
from collections.abc import Callable, Sequence

Value = int | float | bool | None  # None: what can't be computed
Program = Sequence[tuple[str, int | float]]
_MAX_INT = 2**63


def is_true(program: Program, counts: Sequence[int]) -> bool:
    """Whether a program comes to true."""
    return run(program, counts) is True


def run(program: Program, counts: Sequence[int]) -> Value:
    """What a program comes to."""
    stack: list[Value] = []
    for name, operand in program:
        if name == "counter":
            stack.append(counts[int(operand)])
        elif name in ("int", "double"):
            stack.append(operand)
        elif name == "bool":
            stack.append(bool(operand))
        elif name == "if":
            that, this, condition = stack.pop(), stack.pop(), stack.pop()
            stack.append(None if condition is None else this if condition else that)
        elif name in _ONE:
            value = stack.pop()
            stack.append(None if value is None else _ONE[name](value))
        elif name in ("and", "or"):
            stack.append(_logic(stack.pop(), stack.pop(), name == "or"))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(None if left is None or right is None else _TWO[name](left, right))
    return stack.pop()


def _logic(one: Value, other: Value, decisive: bool) -> Value:
    """Or, for which true is decisive, and and, for which false is: whatever the other side is, an error too."""
    if decisive in (one, other):
        return decisive
    return None if one is None or other is None else not decisive


def _whole(number: float) -> int | None:
    return int(number) if -_MAX_INT <= number < _MAX_INT else None  # NaN is not


def _arithmetic(
    whole: Callable[[int, int], int], real: Callable[[float, float], float]
) -> Callable[..., Value]:
    def compute(left: int | float, right: int | float) -> Value:
        if isinstance(left, int) and isinstance(right, int):
            found = whole(left, right)
            return found if -_MAX_INT <= found < _MAX_INT else None
        return real(left, right)

    return compute


def _ordered(compare: Callable[[float, float], bool]) -> Callable[..., Value]:
    return lambda left, right: None if math.isnan(left) or math.isnan(right) else compare(left, right)


def _divided(left: int | float, right: int | float) -> Value:
    if isinstance(left, int) and isinstance(right, int):
        if right == 0:
            return None
        found = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return found if found < _MAX_INT else None
    if right == 0:  # IEEE 754, where Python raises
        is_nan = left == 0 or math.isnan(left)
        return math.nan if is_nan else math.copysign(math.inf, left) * math.copysign(1, right)
    return left / right


def _remainder(left: int, right: int) -> Value:
    if right == 0 or (left, right) == (-_MAX_INT, -1):
        return None
    found = abs(left) % abs(right)
    return -found if left < 0 else found


_ONE: dict[str, Callable[..., Value]] = {
    "to-double": float,
    "to-int": _whole,
    "not": operator.not_,
    "neg": lambda value: None if value == -_MAX_INT and isinstance(value, int) else -value,
}
_TWO: dict[str, Callable[..., Value]] = {
    "add": _arithmetic(operator.add, operator.add),
    "sub": _arithmetic(operator.sub, operator.sub),
    "mul": _arithmetic(operator.mul, operator.mul),
    "div": _divided,
    "mod": _remainder,
    "lt": _ordered(operator.lt),
    "le": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "ge": _ordered(operator.ge),
    "eq": operator.eq,
    "ne": operator.ne,
}
