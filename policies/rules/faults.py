"""Faults that are injected on purpose; frozen values, pure. Made of Traffic documents by `compile_faults.py`."""

from typing import Literal

from msgspec import Struct

from policies.rules.access_policies import PolicyRules

FaultKind = Literal["delay", "abort", "unavailable", "reset", "reset-late", "truncate", "bandwidth"]


class FaultRule(Struct, frozen=True, kw_only=True):
    """One fault. rule: the name under which `PolicyRules` say which calls are meant.

    share: of their attempts, 0 to 1. times: at most, None for without end. seed: None for chance. `abort`: by `status` of HTTP calls, by
    `code` of gRPC calls, None for none of those. bytes: of `truncate`, or a second.
    """

    name: str
    rule: str
    kind: FaultKind
    share: float = 1.0
    times: int | None = None
    seed: int | None = None
    least_s: float = 0.0
    most_s: float = 0.0
    status: int | None = None
    code: int | None = None
    bytes: int = 0

    def is_for(self, *, grpc: bool) -> bool:
        """Whether it can happen to such calls."""
        return self.kind != "abort" or (self.code if grpc else self.status) is not None


class InboundFaults(Struct, frozen=True, kw_only=True):
    """Those of calls to the app. matching: says which calls; None: there are none."""

    rules: tuple[FaultRule, ...] = ()
    matching: PolicyRules | None = None
