"""Lines of many logs in the order of time."""

import pytest

from proxy.cli.log_lines import chosen, dated, merged, time_of

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('time="2026-01-01T12:00:00.500000000Z" level=info msg="x"', NOON + 0.5),
        ('{"time": "2026-01-01T12:00:00.123456789Z", "msg": "x"}', NOON + 0.123456),
        ('{"ts": 1767268800.25}', NOON + 0.25),
        ('{"timestamp": 1767268800250}', NOON + 0.25),
        ("2026-01-01T13:00:00+01:00 started", NOON),
        ("[2026-01-01 12:00:00,250 +0000] started", NOON + 0.25),
        ("started at 2026-01-01T12:00:00Z", None),
        ('{"time": true}', None),
        ('{"msg": "x"}', None),
        ("{no json", None),
        ("2026-13-45T99:00:00Z", None),
        ('time="never"', None),
        ("", None),
    ],
)
def test_time_is_read_where_a_line_says_it(text: str, at: float | None) -> None:
    assert time_of(text) == (None if at is None else pytest.approx(at))


def test_line_without_a_time_is_as_old_as_the_one_before_it() -> None:
    lines = dated(["a", '{"ts": 20}', "b", '{"ts": 10}', '{"ts": 30}'], 0, 99.0)
    assert [line.at for line in lines] == [20, 20, 20, 20, 30]
    assert [line.at for line in dated(["a", "b"], 0, 99.0)] == [99, 99]
    assert dated([], 0, 99.0) == []


def test_sources_are_merged_by_time_and_ties_go_to_the_first() -> None:
    one = dated(['{"ts": 1}', "more of it", '{"ts": 4}'], 0, 0)
    two = dated(['{"ts": 2}', '{"ts": 4}'], 1, 0)
    assert [(line.at, line.number) for line in merged([one, two])] == [(1, 0), (1, 0), (2, 1), (4, 0), (4, 1)]


def test_last_lines_are_counted_among_those_that_are_new_enough() -> None:
    lines = dated([f'{{"ts": {at}}}' for at in range(5)], 0, 0)
    assert [line.at for line in chosen(lines, since=2, tail=9)] == [2, 3, 4]
    assert [line.at for line in chosen(lines, since=None, tail=1)] == [4]
    assert not chosen(lines, since=None, tail=0)
