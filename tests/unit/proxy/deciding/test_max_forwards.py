"""Max-Forwards: answered at 0, counted down, and of no meaning to other methods."""

import pytest

from proxy.contract.plan import Cause, Decision, Op, Plan, Reply
from tests.unit.proxy.heads import asking, head, outbound


def decide(method: str, value: bytes) -> Decision:
    headers = ((b"dapr-app-id", b"cart"), (b"max-forwards", value))
    return outbound().decide(asking(head("/x", method=method, headers=headers)))


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("TRACE", 501)])
def test_at_0_the_proxy_answers(method: str, status: int) -> None:
    found = decide(method, b"0")
    assert isinstance(found, Reply)
    assert found.status == status
    assert found.cause is (Cause.STATUS if status == 200 else Cause.UNSUPPORTED)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    ("value", "sent"), [(b"1", [b"0"]), (b"010", [b"9"]), (b"-1", []), (b"x", []), (b"9" * 400, [])]
)
def test_otherwise_it_is_counted_down_where_it_is_a_number(
    method: str, value: bytes, sent: list[bytes]
) -> None:
    found = decide(method, value)
    assert isinstance(found, Plan)
    edits = [edit for edit in found.routes[0].edits if edit.name == b"max-forwards"]
    assert [edit.data for edit in edits if edit.op is Op.SET] == sent


def test_other_methods_have_none() -> None:
    found = decide("GET", b"0")
    assert isinstance(found, Plan)
    assert not [edit for edit in found.routes[0].edits if edit.name == b"max-forwards"]
