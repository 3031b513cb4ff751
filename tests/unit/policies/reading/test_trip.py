"""What of CEL a trip may say; what it means is in `tests/vectors/breakers.json`."""

import pytest

from policies.reading.trip import MAX_PARTS, TripError, compile_trip


def test_program_is_in_postfix_order() -> None:
    assert compile_trip("requests > 10 && !(totalFailures * 2 < 3.5)") == (
        ("counter", 0),
        ("int", 10),
        ("gt", 0),
        ("counter", 2),
        ("int", 2),
        ("mul", 0),
        ("to-double", 0),
        ("double", 3.5),
        ("lt", 0),
        ("not", 0),
        ("and", 0),
    )


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("consecutiveFailures >", "has the end where a number or a counter is expected", 22),
        ("(requests > 5", "has the end where `)` is expected", 14),
        ("requests > 5)", "has `)` where an operator or the end is expected", 13),
        ("requests > 5 and true", "has `and` where an operator or the end is expected", 14),
        ("requests > 5u", "has `u` where", 13),
        ("requests = 5", "'=' has no place in a trip", 10),
        ("'5' == '5'", '"\'" has no place in a trip', 1),
        ("requests > 5 ? true", "has the end where `:` is expected", 20),
        ("requests > 9223372036854775808", "does not fit into 64 bits", 12),
        (" ", "has the end where a number or a counter is expected", 2),
        ("(" * 40, "too many brackets", 31),
        ("!" * 300 + "true", f"more than {MAX_PARTS}", 201),
    ],
)
def test_what_is_no_cel_is_told_with_its_column(text: str, problem: str, column: int) -> None:
    with pytest.raises(TripError) as caught:
        compile_trip(text)
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"(column {column})")
    assert caught.value.is_syntax


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("requests > 5 && failures > 3", "unknown name 'failures' (expected requests, ", 17),
        ("requests", "is of type int, not a condition", 1),
        ("double(requests) / 2.0", "is of type double, not a condition", 1),
        (
            "totalFailures / 2.0 > 1.0",
            "`/` can't combine int and double: put double(…) or int(…) round one side",
            15,
        ),
        ("totalFailures + 1 && true", "`&&` can't combine int and bool", 19),
        ("double(requests) % 2.0 > 1.0", "`%` can't combine double and double", 18),
        ("true > false", "`>` can't combine bool and bool", 6),
        ("requests == true", "`==` can't combine int and bool", 10),
        ("!requests", "`!` can't be put before an int", 1),
        ("-(requests > 1)", "`-` can't be put before a bool", 1),
        ("requests ? true : false", "`?` needs a condition before it, not an int", 10),
        ("(true ? 1 : 2.0) > 1.0", "`?` has an int on one side and a double on the other", 7),
        ("size(requests) > 1", "unknown function `size` (expected int or double)", 1),
        ("int(true) > 1", "`int` takes a number, not a bool", 1),
    ],
)
def test_what_cel_would_fail_at_is_told_with_its_column(text: str, problem: str, column: int) -> None:
    with pytest.raises(TripError) as caught:
        compile_trip(text)
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"(column {column})")
    assert not caught.value.is_syntax


def test_the_longest_that_is_read_is_compiled() -> None:
    assert len(compile_trip("requests > 1" + "+1" * ((MAX_PARTS - 4) // 2))) > MAX_PARTS / 2
    assert compile_trip("(" * 29 + "true" + ")" * 29) == (("bool", 1),)
