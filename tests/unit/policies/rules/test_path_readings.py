"""What apps may take a path for."""

from hypothesis import given
from hypothesis import strategies as st

from policies.rules.path_readings import MAX_READ_BYTES, MAX_READINGS, readings
from tests.support.vectors import Text, Vector, spelt, vectors


class Readings(Vector, frozen=True, kw_only=True):
    path: Text
    all: list[Text] | None


@vectors("readings", "readings", Readings)
def test_path_is_read_in_all_ways_and_no_others(vector: Readings) -> None:
    found = readings(spelt(vector.path))
    if vector.all is None:
        assert found is None
        return
    assert found is not None
    expected = [spelt(one) for one in vector.all]
    assert found[0] == expected[0]
    assert sorted(found) == sorted(expected)


class Among(Vector, frozen=True, kw_only=True):
    path: str
    one: str


@vectors("readings", "among", Among)
def test_reading_that_some_router_serves_is_found(vector: Among) -> None:
    assert vector.one in (readings(vector.path) or ())


def test_path_of_no_unicode_has_no_readings() -> None:
    assert readings("/\ud800;") is None


PIECES = (
    "a",
    "b",
    ";",
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2F",
    "%5C",
    "\\",
    "%3B",
    "%25",
    "%252F",
    "%3F",
    "ä",
    "%41",
    "%20",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces)))
def test_readings_are_few_and_distinct(path: str) -> None:
    found = readings(path)
    if found is not None:
        assert len(set(found)) == len(found) <= MAX_READINGS
        assert sum(len(one.encode()) for one in found) <= MAX_READ_BYTES
        assert all(one.startswith("/") for one in found)
