"""Which baggage goes on: all that is valid, and across a trust boundary what is allowed there. Pure.

Source: W3C Baggage §3.3 and §4 (a vendor should consider to drop what crosses a trust boundary).
"""

from msgspec import Struct
from msgspec.structs import replace

from proxy.contract.plan import Edit, Edits, Labels, Op, Reply
from proxy.contract.recording import RecordingHead
from proxy.deciding.callee import BAGGAGE_SET
from proxy.deciding.plain_text import bad_baggage

_NOT_ALLOWED = "not-allowed"


class BaggageRules(Struct, frozen=True, kw_only=True):
    """is_strict: invalid baggage is refused. allowed: keys that cross a trust boundary; None: all."""

    is_strict: bool = False
    allowed: frozenset[bytes] | None = None

    def take(
        self, head: RecordingHead, labels: Labels, *, crosses_boundary: bool
    ) -> tuple[Labels, Edits] | Reply:
        """What telemetry says of the baggage and what is done to it; or a refusal."""
        is_limited = crosses_boundary and self.allowed is not None
        wrong = head.baggage(BAGGAGE_SET if is_limited else None)
        if not wrong:
            return labels, ()
        if self.is_strict and wrong != _NOT_ALLOWED:
            return bad_baggage(labels, wrong)
        edit = Edit(op=Op.BAGGAGE)
        if is_limited and self.allowed is not None:
            edit = Edit(op=Op.BAGGAGE, name=b"only", data=b",".join(sorted(self.allowed)))
        return replace(labels, baggage=wrong), (edit,)
