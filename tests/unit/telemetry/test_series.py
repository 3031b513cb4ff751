"""Slots, buckets and the cap on label sets."""

import pytest

from telemetry.errors import MetricError
from telemetry.series import SERIES_LIMIT, Counter, Distribution, Gauge, Histogram
from tests.unit.telemetry.building import SAMPLED


def test_slot_same_labels_share_one() -> None:
    counter = Counter("c_total", "C.", ("a", "b"))
    counter.slot("1", "2").value += 1
    counter.add("1", "2", amount=2)
    assert counter.slots[("1", "2")].value == 3


@pytest.mark.parametrize("values", [(), ("1",), ("1", "2", "3")])
def test_slot_wrong_number_of_labels_is_an_error(values: tuple[str, ...]) -> None:
    with pytest.raises(MetricError, match="expected 2 label values"):
        Counter("c_total", "C.", ("a", "b")).slot(*values)


def test_slot_at_the_limit_is_kept_and_beyond_it_folded() -> None:
    counter = Counter("c_total", "C.", ("path",), limit=2)
    for path in ("/1", "/2", "/3", "/4", "/1"):
        counter.add(path)
    assert {labels[0]: slot.value for labels, slot in counter.slots.items()} == {"/1": 2, "/2": 1, "other": 2}
    assert counter.folded == 2


def test_observe_bounds_are_inclusive_and_the_rest_is_above() -> None:
    slot = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        slot.observe(value)
    assert slot.counts == [2, 2, 1]
    assert slot.cumulative() == [2, 4, 5]
    assert slot.sum == 14.0


def test_observe_sampled_leaves_the_latest_span_of_a_bucket() -> None:
    slot = Histogram("h", "H.", (), (1.0,)).slot()
    slot.observe_sampled(0.5, SAMPLED, 1.0)
    slot.observe_sampled(0.7, SAMPLED._replace(span_id=9), 2.0)
    assert slot.exemplars[0] == (SAMPLED._replace(span_id=9), 0.7, 2.0)
    assert slot.counts == [2, 0]


def test_gauge_replace_leaves_nothing_of_what_is_gone() -> None:
    gauge = Gauge("g", "G.", ("app",))
    gauge.set(1, "a")
    gauge.replace({("b",): 2})
    assert {labels: slot.value for labels, slot in gauge.slots.items()} == {("b",): 2}


def test_slots_are_bounded_in_number_and_length_whatever_callers_name() -> None:
    family = Counter("calls_total", "Calls.", ("app", "path"))
    for number in range(20_000):
        family.add("cart", f"/{number}")
    family.add("cart", "x" * 100_000)
    assert len(family.slots) == SERIES_LIMIT + 1
    assert sum(slot.value for slot in family.slots.values()) == 20_001
    few = Counter("few_total", "Few.", ("app", "path"))
    for number in range(3):
        few.add("cart", f"{number}" * 100_000)
    assert {labels: slot.value for labels, slot in few.slots.items()} == {("cart", "other"): 3}
