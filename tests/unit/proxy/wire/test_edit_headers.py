"""What edits leave of headers, whatever was sent."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.head import Headers
from proxy.contract.plan import Edit, Op
from proxy.deciding.app_plan import STRIP
from proxy.wire.edits import (
    HOP_BY_HOP,
    compile_edits,
    edit_headers,
)

COMPILED = compile_edits(
    (Edit(op=Op.HOP_BY_HOP), *STRIP, Edit(op=Op.SET, name=b"dapr-caller-app-id", data=b"web"))
)
_NAMES = st.sampled_from(
    [
        b"dapr-caller-app-id",
        b"dapr_caller_app_id",
        b"dapr-caller_namespace",
        b"dapr_api-token",
        b"postern-error",
        b"postern_surface",
        b"x-forwarded-client-cert",
        b"connection",
        b"te",
        b"x-keep",
        b"x_keep",
        b"x-listed",
    ]
)
_HEADERS = st.lists(
    st.tuples(_NAMES, st.sampled_from([b"1", b"x-listed, close", b"forged"])), max_size=12
).map(tuple)


@given(_HEADERS)
def test_identity_and_hop_by_hop_headers_never_pass_in_any_spelling(headers: Headers) -> None:
    left = edit_headers(COMPILED, headers)
    assert [field for field in left if field[0] == b"dapr-caller-app-id"] == [(b"dapr-caller-app-id", b"web")]
    for name, _ in left[:-1]:
        spelt = name.replace(b"_", b"-")
        assert not spelt.startswith((b"dapr-caller-", b"postern-"))
        assert spelt not in {b"dapr-api-token", b"x-forwarded-client-cert"} | HOP_BY_HOP


@given(_HEADERS)
def test_other_headers_pass_in_order(headers: Headers) -> None:
    listed = any(name == b"connection" and b"x-listed" in data for name, data in headers)
    wanted = [field for field in headers if field[0] in (b"x-keep", b"x_keep")]
    left = [field for field in edit_headers(COMPILED, headers) if field[0] in (b"x-keep", b"x_keep")]
    assert left == wanted
    if listed:
        assert all(name != b"x-listed" for name, _ in edit_headers(COMPILED, headers))
