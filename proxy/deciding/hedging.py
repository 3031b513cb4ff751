"""Whether a call may have attempts at once, and by which rules. Pure."""

from itertools import repeat
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.resiliency import TargetRules
from policies.rules.retries import HedgeRule, TargetRetries
from proxy.contract.plan import Cause, Hedge, RetryPolicy
from proxy.contract.recording import RecordingHead
from proxy.deciding.callee import HEDGED_METHODS
from proxy.deciding.repeatable import is_declared_stream, is_idempotent, is_unknown_length

_BROKEN: Final = frozenset(
    {
        Cause.CONNECT,
        Cause.REFUSED,
        Cause.TLS_IDENTITY,
        Cause.NO_ENDPOINT,
        Cause.NOT_READY,
        Cause.RESET_EARLY,
        Cause.TIMEOUT,
    }
)
# gRPC's code for an HTTP status; UNKNOWN for others ("HTTP to gRPC Status Code Mapping").
_CODES: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN: Final = 2


class HedgedMethods(Struct, frozen=True):
    """The table of gRPC methods that are listed for hedging: itself, or "" for any other path."""

    methods: frozenset[str]

    def classify(self, path: str) -> str:
        """The class of a path."""
        return path if path in self.methods else ""


def hedge_rule(head: RecordingHead, rules: TargetRules) -> HedgeRule | None:
    """By which a call is hedged; None: it is not."""
    rule = rules.retries.hedging
    if rule is None or head.protocol() == "websocket" or is_unknown_length(head) or is_declared_stream(head):
        return None
    if head.protocol() == "grpc":
        return rule if head.path_class(HEDGED_METHODS) in rule.methods else None
    return rule if is_idempotent(head) else None


def measured(retries: TargetRetries, delay_s: float | None) -> TargetRetries:
    """The same with the delay that was measured, where the rule wants that; until there is one, calls are not hedged."""
    rule = retries.hedging
    if rule is None or rule.delay_s is not None:
        return retries
    return replace(retries, hedging=None if delay_s is None else replace(rule, delay_s=delay_s))


def hedge_of(rule: HedgeRule) -> Hedge:
    """The same as data for engines."""
    assert rule.delay_s is not None  # see `measured`
    return Hedge(attempts=rule.attempts, delay_s=rule.delay_s)


def hedged_failures(rule: HedgeRule) -> RetryPolicy:
    """The failures that another attempt follows, at once, as it goes to another endpoint where there is one: what the answer says of
    later attempts is not for that.
    """
    return RetryPolicy(
        attempts=rule.attempts,
        on=_BROKEN,
        http_codes=frozenset(
            status for status in range(400, 600) if _CODES.get(status, _UNKNOWN) in rule.grpc_codes
        ),
        grpc_codes=rule.grpc_codes,
        delays_s=lambda: repeat(0.0),
        heeds_answer=False,
    )
