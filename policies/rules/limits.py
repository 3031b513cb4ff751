"""How many calls may come, and how many are sent to a target; frozen values, pure. Made of Traffic documents by `compile_limits.py`."""

from collections.abc import Mapping

from msgspec import Struct

from policies.rules.access_policies import PolicyRules


class RateRule(Struct, frozen=True, kw_only=True):
    """So many requests in `per_s` seconds, and `burst` at once, of each caller or of all together.

    For which calls, `Limits.matching` says.
    """

    name: str
    requests: int
    per_s: float
    burst: int
    is_shared: bool = False


class ConcurrencyRule(Struct, frozen=True, kw_only=True):
    """So many calls at once: `limit`, None for one that adapts between `least` and `most`. `queue` more wait, for `wait_s` at most."""

    limit: int | None
    least: int = 3
    most: int = 1_000
    queue: int = 128
    wait_s: float = 0.1


class LagRule(Struct, frozen=True, kw_only=True):
    """Calls are shed while the proxy has been late by more than `above_s` for `for_s`."""

    above_s: float = 0.25
    for_s: float = 2.0


class ThrottleRule(Struct, frozen=True, kw_only=True):
    """Calls are held back as the target accepts fewer than one in `ratio` of those in `window_s`."""

    ratio: float = 2.0
    window_s: float = 120.0


class Limits(Struct, frozen=True, kw_only=True):
    """Of calls that come to the app. rates: by name. matching: its rules, of the same names, say for which calls; None: there are none."""

    rates: Mapping[str, RateRule] = {}
    matching: PolicyRules | None = None
    connections: int | None = None
    concurrency: ConcurrencyRule | None = None
    lag: LagRule | None = None
