"""When a circuit breaker opens, as a small program that every engine can run: made of CEL by `policies/reading/trip.py`.

A program is a list in postfix order for a machine with one stack of values. Each step is a name and its operand, 0 where it has none:
`int`, `double` and `bool` push a value, `counter` pushes one of `COUNTERS` by its place; `to-double`, `to-int`, `neg` and `not` replace the
uppermost value; `add`, `sub`, `mul`, `div`, `mod`, `lt`, `le`, `gt`, `ge`, `eq`, `ne`, `and` and `or` the two uppermost, which are of one
type; `if` the three uppermost, as in `condition ? this : that`. Integers have 64 bits, division cuts towards zero.

What can't be computed (division by zero, overflow) is an error, which spreads to all that is computed with it, except that `and` with
false is false, `or` with true is true, and `if` looks at the branch that it takes alone. A program that ends in an error is not true.
"""

Step = tuple[str, int | float]
Program = tuple[Step, ...]

#: Places are those of the engines' counters.
COUNTERS = ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures")
NEVER: Program = (("bool", 0),)
