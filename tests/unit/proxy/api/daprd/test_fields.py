"""Header fields in envelopes."""

import pytest

from proxy.api.daprd.fields import as_text, canonical, first, from_map, into_map
from proxy.api.daprd.framing import WireError
from proxy.api.daprd.internals_pb2 import InternalInvokeRequest


def mapped(**fields: list[str]) -> InternalInvokeRequest:
    """An envelope with these fields; `_` stands for `-`."""
    request = InternalInvokeRequest()
    for name, values in fields.items():
        request.metadata[name.replace("_", "-")].values.extend(values)
    return request


@pytest.mark.parametrize(
    ("name", "written"), [("accept", "Accept"), ("x-b3-traceid", "X-B3-Traceid"), ("dnt", "Dnt")]
)
def test_names_are_in_gos_case(name: str, written: str) -> None:
    assert canonical(name) == written


def test_values_stay_in_order_and_as_bytes() -> None:
    request = InternalInvokeRequest()
    into_map(((b"x-a", b"1"), (b"x-b", "ü".encode()), (b"x-a", b"2"), (b"x-c", b"\xfc")), request.metadata)
    assert {name: list(values.values) for name, values in request.metadata.items()} == {
        "X-A": ["1", "2"],
        "X-B": ["ü"],
        "X-C": ["ü"],
    }
    assert as_text(b"\xff") == "ÿ"


def test_binary_ones_are_in_the_case_in_which_daprds_decode_them() -> None:
    request = InternalInvokeRequest()
    into_map(((b"x-a-bin", b"AAE="), (b"x-b-bin", b"no base64!")), request.metadata)
    assert {name: list(values.values) for name, values in request.metadata.items()} == {
        "x-a-bin": ["AAE="],
        "X-B-Bin": ["no base64!"],
    }


def test_fields_of_the_hop_and_of_ours_are_left_out() -> None:
    request = mapped(
        Connection=["X-Hop, close"],
        X_Hop=["1"],
        Transfer_Encoding=["chunked"],
        Te=["trailers"],
        Host=["evil"],
        Postern_Peer=["spiffe://x"],
        destination_app_id=["cart"],
        X_Kept=["yes"],
        grpc_accept_encoding=["gzip"],
        X_Raw_bin=["AAE="],
    )
    assert dict(from_map(request.metadata, keeps_binary=False)) == {
        b"x-kept": b"yes",
        b"dapr-grpc-accept-encoding": b"gzip",
    }
    assert (b"x-raw-bin", b"AAE=") in list(from_map(request.metadata, keeps_binary=True))


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\x00b", "a\x7fb"])
def test_control_characters_smuggle_nothing(value: str) -> None:
    with pytest.raises(WireError):
        list(from_map(mapped(X_A=[value]).metadata, keeps_binary=False))


@pytest.mark.parametrize("name", ["", "x y", "x:y", "ü", ":other", "x\r\ny"])
def test_names_that_are_none_are_refused(name: str) -> None:
    request = InternalInvokeRequest()
    request.metadata[name].values.append("x")
    with pytest.raises(WireError):
        list(from_map(request.metadata, keeps_binary=False))


def test_field_is_found_in_any_case() -> None:
    assert first(mapped(Content_Length=["5"]).metadata, "content-length") == "5"
    assert first(mapped(x=[]).metadata, "x") == ""
