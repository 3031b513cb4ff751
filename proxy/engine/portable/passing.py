"""What passes a gate, waits at it or is refused, and what a gate of any kind does."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from proxy.contract.gates import GateSpec, GateState
from proxy.contract.head import Headers
from proxy.contract.plan import Cause

#: When an answer began, by the loop's clock, less what its request took to come; `streaming`: before its request was whole.
Begun = float | Literal["never", "streaming"]


class Passed(Protocol):
    """What a gate let through."""

    def leave(self, cause: Cause | None, now: float) -> None:
        """It ended: well, or failed by a cause. STATUS, SHED: the app's answer is a failure, or says that it had no room."""


class Told(NamedTuple):
    """What whoever is refused is told beside the ready-made answer: fields, and in how many seconds to come again, where that helps."""

    headers: Headers
    again_s: float | None

    def fits(self, cause: Cause) -> bool:
        """Whether the answer for a cause is to say so."""
        return cause is Cause.RATE or self.again_s is None


class Refused(NamedTuple):
    """A gate refuses, and why: the attempt or the call fails with this."""

    cause: Cause
    detail: str
    told: Told | None = None


class Waiting:
    """What must wait: until the gate settles it, or until the clock says `at`, when `then` has come of it."""

    __slots__ = ("at", "is_over", "tell", "then")

    def __init__(self, at: float | None = None, then: "Passed | Refused | None" = None) -> None:
        self.at = at
        self.then = then
        self.tell: Callable[[Passed | Refused], None] = _nobody
        self.is_over = False

    def settle(self, found: "Passed | Refused") -> None:
        """This has come of it."""
        if not self.is_over:
            self.is_over = True
            self.tell(found)

    def expire(self) -> None:
        """The clock says so."""
        assert self.then is not None
        self.settle(self.then)

    def cancel(self, cause: Cause | None, now: float) -> None:
        """Nobody waits any more."""
        self.is_over = True
        if self.then is not None and not isinstance(self.then, Refused):
            self.then.leave(cause, now)


def _nobody(_: "Passed | Refused") -> None:
    """Until somebody waits."""


class Gate(Protocol):
    """One gate of some kind. It owns no timer and no task."""

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Ask to be admitted. now: the loop's clock; chance: in [0, 1); who: the peer's proven id, else its address."""

    def change(self, spec: GateSpec) -> None:
        """Take over a spec of the same kind; who waits may come in by it."""

    def open(self) -> None:
        """It is taken down: who waits comes in. What is inside leaves it as before."""

    def state(self) -> GateState:
        """A glance, for status."""

    def note_lag(self, lag_s: float) -> None:
        """How late the loop ran a timer that is due each `LAG_SAMPLE_S`."""
