"""What a reflection answer says, read without generated code: held against the real messages."""

import pytest
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.app_client import services_in, visible_services
from proxy.control.app_watch import AppWatch
from proxy.settings.parsing import parse

NAMES = st.text(st.characters(codec="utf-8"), max_size=30)
Response = reflection_pb2.ServerReflectionResponse


def answer(*names: str, host: str = "", original: bool = True) -> bytes:
    """A real list of services."""
    listed = reflection_pb2.ListServiceResponse(
        service=[reflection_pb2.ServiceResponse(name=name) for name in names]
    )
    made = Response(valid_host=host, list_services_response=listed)
    if original:
        made.original_request.list_services = "x"
    content: bytes = made.SerializeToString()
    return content


@given(st.lists(NAMES, max_size=20), NAMES, st.booleans())
def test_names_are_those_of_the_message(names: list[str], host: str, original: bool) -> None:
    found = list(services_in(answer(*names, host=host, original=original)))
    assert found == [name for name in names if name]  # an empty string is not on the wire


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_as_a_value_error(data: bytes) -> None:
    try:
        names = list(services_in(data))
    except ValueError:
        return
    assert all(isinstance(name, str) for name in names)


@given(st.lists(NAMES.filter(bool), min_size=1, max_size=4), st.data())
def test_answer_that_was_cut_yields_no_name_that_was_not_there(names: list[str], data: st.DataObject) -> None:
    whole = answer(*names)
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = list(services_in(whole[:cut]))
    except ValueError:
        return
    assert found == []  # cut right before the list


def test_an_error_answer_names_nobody() -> None:
    error = Response(error_response=reflection_pb2.ErrorResponse(error_code=12, error_message="no"))
    assert list(services_in(error.SerializeToString())) == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x32",  # a length is missing
        b"\x32\x05ab",  # shorter than it says
        b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a number of eleven bytes
        b"\x33",  # a group
        b"\x09\x00",  # a fixed64 of one byte
        b"\x08",  # a number that never comes
    ],
)
def test_malformed_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="message"):
        list(services_in(data))


def test_unknown_fields_of_every_kind_are_passed_over() -> None:
    extra = b"\xf8\x07\x2a" + b"\xf9\x07" + b"8" * 8 + b"\xfd\x07" + b"4444" + b"\xfa\x07\x01x"
    assert list(services_in(extra + answer("a.B") + extra)) == ["a.B"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.B", "a.A", "b.B"], ("a.A", "b.B")),
        (["grpc.health.v1.Health", "dapr.proto.X", "grpc.reflection.v1.ServerReflection"], ()),
        (["grpcx.A"], ("grpcx.A",)),
        (["", "a b", "a/b", "ä.B", "x" * 257, "ok"], ("ok",)),
    ],
)
def test_infrastructure_and_what_is_no_name_is_not_shown(names: list[str], expected: tuple[str, ...]) -> None:
    assert visible_services(names) == expected


def test_number_of_learnt_services_is_bounded() -> None:
    assert len(visible_services(f"s.S{number}" for number in range(10_000))) == 512


@pytest.mark.parametrize(
    ("flags", "is_open", "healthy", "services"),
    [
        ((), True, None, ()),
        (("--app-port", "1"), False, None, ()),
        (("--app-port", "1", "--enable-app-health-check"), False, False, ()),
        (("--app-port", "1", "--grpc-service", "a.B"), False, None, ("a.B",)),
    ],
)
def test_what_is_true_before_anything_was_seen(
    flags: tuple[str, ...], is_open: bool, healthy: bool | None, services: tuple[str, ...]
) -> None:
    watch = AppWatch(parse(["--app-id", "web", *flags], {"POSTERN_HOME": "/nowhere"}), lambda: None)
    assert (watch.is_open, watch.healthy, watch.services) == (is_open, healthy, services)


async def test_sidecar_without_an_app_has_nothing_to_watch() -> None:
    await AppWatch(parse(["--app-id", "web"], {"POSTERN_HOME": "/nowhere"}), lambda: None).run()
