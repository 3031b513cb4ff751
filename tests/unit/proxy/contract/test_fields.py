"""Baggage: what is passed on, and what is wrong with the rest."""

from proxy.contract.fields import read_baggage
from tests.support.vectors import Text, Vector, octets, vectors


class Read(Vector, frozen=True, kw_only=True):
    lines: list[Text]
    wrong: str
    sound: Text


@vectors("baggage", "read", Read)
def test_sound_members_are_passed_on_and_others_told(vector: Read) -> None:
    fields = [(b"baggage", octets(line)) for line in vector.lines]
    assert read_baggage([(b"via", b"x"), *fields]) == (vector.wrong, octets(vector.sound))
