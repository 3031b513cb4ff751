"""Where a call's time went."""

from telemetry.split import attempt_told, timings_us
from tests.unit.telemetry.building import an_attempt

MS = 1_000_000


def test_call_that_was_never_sent_was_held_all_the_time() -> None:
    assert timings_us(0, 3 * MS, ()) == {"hold": 3_000}
    never = an_attempt(started_ns=MS, ended_ns=3 * MS)
    assert timings_us(0, 3 * MS, (never,)) == {"hold": 1_000, "connect": 2_000}


def test_parts_add_up_to_the_whole() -> None:
    failed = an_attempt(started_ns=2 * MS, ended_ns=5 * MS)
    good = an_attempt(started_ns=6 * MS, sent_ns=9 * MS, head_ns=20 * MS, ended_ns=26 * MS)
    found = timings_us(MS, 26 * MS, (failed, good))
    assert found == {"hold": 1_000, "retries": 4_000, "connect": 3_000, "wait": 11_000, "body": 6_000}


def test_clock_that_was_set_back_makes_no_negative_length() -> None:
    assert timings_us(5 * MS, MS, ()) == {"hold": 0}


def test_attempt_is_told_with_what_it_came_to() -> None:
    told = attempt_told(an_attempt(started_ns=2 * MS, sent_ns=3 * MS, ended_ns=4 * MS, said="denied"), MS)
    assert (told["start_us"], told["connect_us"], told["wait_us"], told["took_us"]) == (
        1_000,
        1_000,
        None,
        2_000,
    )
    assert told["cause"] == "denied"
