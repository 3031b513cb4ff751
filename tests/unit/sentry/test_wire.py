"""Our few lines of protobuf say what the library says."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sentry.ca_pb2 import SignCertificateRequest, SignCertificateResponse
from sentry.wire import encode, sized_fields

_TEXTS = st.text(max_size=300)


@given(_TEXTS, _TEXTS, st.binary(max_size=70_000), st.integers(0, 3))
def test_encode_is_read_by_the_library(app: str, token: str, csr: bytes, validator: int) -> None:
    message = encode(((1, app.encode()), (2, token.encode()), (5, csr), (6, validator)))
    found = SignCertificateRequest.FromString(message)
    assert (found.id, found.token, found.certificate_signing_request, found.token_validator) == (
        app,
        token,
        csr,
        validator,
    )
    assert message == found.SerializeToString()


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=3), st.integers(0, 2**40))
def test_fields_of_what_the_library_wrote(chain: bytes, roots: list[bytes], until: int) -> None:
    response = SignCertificateResponse(
        workload_certificate=chain, trust_chain_certificates=roots, valid_until=Timestamp(seconds=until)
    )
    found = list(sized_fields(response.SerializeToString()))
    assert [value for number, value in found if number == 1] == ([chain] if chain else [])
    assert [value for number, value in found if number == 2] == roots
    assert 3 in dict(found)


@given(st.binary(max_size=50))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = list(sized_fields(data))
    except ValueError:
        return
    assert sum(len(value) for _, value in found) <= len(data)


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x0a", b"\xff" * 11, b"\x0b", b"\x0d\x01"])
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="message"):
        list(sized_fields(data))
