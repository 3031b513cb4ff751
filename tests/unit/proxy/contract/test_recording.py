"""What a decider reads is what a kept decision depends on; secrets never become keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields, replace

from proxy.contract import engine, outcome, plan, recording
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Edit, Op, Route
from proxy.contract.recording import LONG, MAX_KEY_BYTES, NAMING_HEADERS, Facet, Read, RecordingHead, Tables
from tests.support.vectors import Text, Vector, octets, spelt, vectors
from tests.unit.proxy.heads import head

TOKENS = 1


class Length:
    """A table whose class of a path is its length."""

    def classify(self, path: str) -> int:
        return len(path)


def pushed(members: frozenset[bytes] = frozenset({b"secret"})) -> Tables:
    made = Tables()
    made.put_paths(0, Length())
    made.put_paths(7, Length())
    made.put_set(TOKENS, members)
    return made


def asking(**changes: object) -> RecordingHead:
    return RecordingHead(head("/abc", **changes), pushed())


def test_every_question_records_what_it_read() -> None:
    one = asking(peer="spiffe://x/ns/y/z", headers=((b"dapr-app-id", b"cart"),))
    answers = [
        *(one.listener(), one.protocol(), one.framing(), one.method(), one.authority()),
        *(one.peer(), one.form(), one.path_class(7), one.naming(b"dapr-app-id")),
        one.header_is(b"dapr-api-token", TOKENS),
        *(one.carries(TOKENS), one.baggage()),
    ]
    assert one.may_keep
    assert (one.whole(), one.may_keep) == (one._head, False)
    answers.append(None)
    assert {read.facet for read in one.vary} == set(Facet)
    assert list(one.key) == answers
    assert len(one.vary) == len(one.key) == 13


def test_question_asked_twice_is_read_once() -> None:
    one = asking()
    assert one.method() == one.method() == "GET"
    assert one.vary == (Read(facet=Facet.METHOD),)


def test_nothing_asked_nothing_read() -> None:
    assert (asking().vary, asking().key) == ((), ())


def test_head_that_was_moved_answers_of_its_new_path_and_reads_for_its_origin() -> None:
    one = asking()
    moved = one.moved("/abcdef", "x=1")
    assert (one.moved_to, moved.moved_to) == (None, ("/abcdef", "x=1"))
    assert moved.moved("/a", "y=2").moved_to == ("/a", "y=2&x=1")
    assert (moved.path_class(7), moved.method()) == (7, "GET")
    assert (moved.whole().path, moved.whole().query) == ("/abcdef", b"x=1")
    assert [read.facet for read in one.vary] == [Facet.METHOD, Facet.WHOLE]
    assert (one.path_class(7), moved.may_keep) == (4, False)


def test_absent_peer_and_header_are_none() -> None:
    one = asking()
    assert one.peer() is None
    assert one.naming(b"origin") is None
    assert one.key == (None, None)


@pytest.mark.parametrize(
    "name", [b"proxy-authorization", b"cookie", b"dapr-api-token", b"x-anything", b"Origin"]
)
def test_value_of_a_header_that_may_hold_a_secret_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="naming header"):
        asking().naming(name)


@pytest.mark.parametrize("name", sorted(NAMING_HEADERS - {b"authorization"}))
def test_long_naming_value_is_no_key(name: bytes) -> None:
    at_edge = asking(headers=((name, b"a" * MAX_KEY_BYTES),))
    assert at_edge.naming(name) == "a" * MAX_KEY_BYTES
    beyond = asking(headers=((name, b"a" * (MAX_KEY_BYTES + 1)),))
    assert beyond.naming(name) == LONG


def test_naming_value_is_stripped_and_the_first_of_several() -> None:
    one = asking(headers=((b"dapr-app-id", b" cart\t"), (b"dapr-app-id", b"web")))
    assert one.naming(b"dapr-app-id") == "cart"


def test_long_authority_and_method_share_a_key() -> None:
    one = asking(authority="a" * (MAX_KEY_BYTES + 1), method="M" * 33)
    assert (one.authority(), one.method()) == (LONG, "*")
    assert asking(method="M" * 32).method() == "M" * 32


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), False),
        (((b"dapr-api-token", b"wrong"),), False),
        (((b"dapr-api-token", b"secret"),), True),
        (((b"dapr-api-token", b"wrong"), (b"dapr-api-token", b"secret")), True),
        (((b"other", b"secret"),), False),
        (((b"dapr-api-token", b"Secret"),), False),
        (((b"dapr-api-token", b"secret "),), False),
    ],
)
def test_membership_is_all_that_is_kept_of_a_secret(
    headers: tuple[tuple[bytes, bytes], ...], expected: bool
) -> None:
    one = asking(headers=headers)
    assert one.header_is(b"dapr-api-token", TOKENS) is expected
    assert one.key == (expected,)
    assert "secret" not in repr((one.vary, one.key))


def test_tables_are_replaced_whole() -> None:
    tables = pushed()
    tables.put_set(TOKENS, frozenset({b"new"}))
    one = RecordingHead(head("/abc", headers=((b"t", b"secret"),)), tables)
    assert not one.header_is(b"t", TOKENS)


@given(st.sampled_from(list(Facet)), st.text("ab/", max_size=4), st.text("ab/", max_size=4))
def test_facet_value_depends_on_its_facet_alone(facet: Facet, one: str, other: str) -> None:
    read = Read(facet=facet, name=b"dapr-app-id", table={Facet.PATH: 7, Facet.CARRIES: TOKENS}.get(facet))
    tables = pushed()
    first, second = head(f"/{one}", authority="x"), head(f"/{other}", authority="x")
    same = facet is not Facet.PATH or len(first.path) == len(second.path)
    assert (tables.facet_value(read, first) == tables.facet_value(read, second)) is same


def test_first_value_of_a_header() -> None:
    one = head("/", headers=((b"a", b"1"), (b"a", b"2")))
    assert (one.get(b"a"), one.get(b"b")) == (b"1", None)


# --- the values


def _values() -> list[type[Struct]]:
    found = [value for module in (engine, outcome, plan, recording) for value in vars(module).values()]
    kinds = {one for one in found if isinstance(one, type) and one is not Struct and issubclass(one, Struct)}
    return sorted(kinds, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", _values())
def test_all_values_but_reports_are_frozen(kind: type[Struct]) -> None:
    assert kind.__struct_config__.frozen is (kind.__name__ not in {"Attempt", "Outcome"})


def test_value_takes_names_only_and_does_not_change() -> None:
    edit = Edit(op=Op.SET, name=b"a", data=b"b")
    with pytest.raises(AttributeError):
        edit.data = b"c"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Route("cluster")  # type: ignore[call-arg]
    assert replace(edit, data=b"c").data == b"c"


def test_causes_are_header_values_of_their_own() -> None:
    words = [cause.value for cause in Cause]
    assert len(set(words)) == len(words)
    assert all(word.replace("-", "").isalpha() and word.islower() for word in words)


def test_head_has_a_field_for_every_facet_that_is_one() -> None:
    names = {field.name for field in fields(RequestHead)}
    assert {facet.value for facet in Facet} - {"header", "carries", "baggage", "whole"} <= names


class Naming(Vector, frozen=True, kw_only=True):
    name: str
    values: list[Text]
    found: Text | None


@vectors("fields", "naming", Naming)
def test_naming_headers_are_read(vector: Naming) -> None:
    one = asking(headers=tuple((vector.name.encode(), octets(value)) for value in vector.values))
    assert one.naming(vector.name.encode()) == (None if vector.found is None else spelt(vector.found))
