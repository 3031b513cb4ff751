"""What of the head of an answer is passed on to the caller."""

from typing import TYPE_CHECKING

from proxy.contract.engine import HopSpan
from proxy.contract.head import Headers
from proxy.wire import answers
from proxy.wire.edits import HOP_BY_HOP, edit_answer
from proxy.wire.head_scan import DECLINED, UPGRADE
from proxy.wire.streams import RawHead

if TYPE_CHECKING:
    from proxy.engine.portable.plans import Kept

_MARKS = {426: UPGRADE, 501: DECLINED}  # from one HTTP/1.1 end to the other


def passed_on(kept: "Kept", raw: RawHead, span: HopSpan, status: int, headers: Headers) -> Headers:
    """The fields that the caller gets, by the edits of the decision."""
    edits = kept.reply_edits
    kept_fields = (h for h in headers if h[0] not in HOP_BY_HOP)
    passed = tuple(kept_fields if edits is None else edit_answer(edits, headers, raw, span))
    mark = _MARKS.get(status)
    if mark is not None:
        passed = (*(h for h in passed if h[0] != mark), *(h for h in headers if h[0] == mark))
    return passed if raw.protocol == "grpc" else answers.dated(passed)
