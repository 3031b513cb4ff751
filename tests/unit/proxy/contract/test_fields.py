"""Baggage: what is passed on, and what is wrong with the rest; and patterns of fields."""

from proxy.contract.fields import baggage_values, carries, read_baggage
from tests.support.vectors import Text, Vector, octets, vectors


class Read(Vector, frozen=True, kw_only=True):
    lines: list[Text]
    wrong: str
    sound: Text
    allowed: list[str] | None = None


@vectors("baggage", "read", Read)
def test_sound_members_are_passed_on_and_others_told(vector: Read) -> None:
    fields = [(b"baggage", octets(line)) for line in vector.lines]
    allowed = None if vector.allowed is None else frozenset(key.encode() for key in vector.allowed)
    assert read_baggage([(b"via", b"x"), *fields], allowed) == (vector.wrong, octets(vector.sound))


class Carries(Vector, frozen=True, kw_only=True):
    patterns: list[Text]
    fields: list[tuple[str, Text]]
    carries: bool


@vectors("fields", "carries", Carries)
def test_patterns_are_names_or_names_with_their_first_word(vector: Carries) -> None:
    fields = [(name.encode(), octets(value)) for name, value in vector.fields]
    assert carries(fields, frozenset(map(octets, vector.patterns))) == vector.carries


def test_values_of_baggage_are_those_of_the_keys_decoded_and_clipped() -> None:
    fields = [
        (b"baggage", b"tenant=%C3%A4;p=1, other=x, tenant = b%ff ,broken"),
        (b"baggage", b"user=" + b"u" * 300),
    ]
    assert baggage_values(fields, ("user", "tenant", "none")) == (
        ("user", "u" * 255 + "…"),
        ("tenant", "b\ufffd"),
    )
    assert baggage_values(fields, ("Tenant",)) == ()
    assert baggage_values([], ("tenant",)) == ()
