"""Where a call's time went."""

from telemetry.split import attempt_told, timings_us
from tests.unit.telemetry.building import an_attempt

MS = 1_000_000


def test_call_without_an_attempt_waited_for_a_name_or_at_limits() -> None:
    found = timings_us(0, 3 * MS, (), resolve_ns=MS, queue_ns=MS)
    assert found == {"resolve": 1_000, "queue": 1_000, "proxy_overhead": 1_000}
    never = an_attempt(started_ns=MS, ended_ns=3 * MS)
    found = timings_us(0, 3 * MS, (never,), queue_ns=MS)
    assert found == {"resolve": 0, "queue": 1_000, "connect": 2_000, "proxy_overhead": 0}


def test_parts_add_up_to_the_whole() -> None:
    failed = an_attempt(started_ns=2 * MS, ended_ns=5 * MS)
    good = an_attempt(started_ns=6 * MS, queue_ns=MS, sent_ns=9 * MS, head_ns=20 * MS, ended_ns=26 * MS)
    found = timings_us(0, 26 * MS, (failed, good), resolve_ns=MS, queue_ns=MS // 2)
    assert found == {
        "resolve": 1_000,
        "queue": 1_500,
        "connect": 2_000,
        "upstream_ttfb": 11_000,
        "body": 6_000,
        "retries": 4_000,
        "proxy_overhead": 500,
    }
    assert sum(found.values()) == 26_000


def test_clock_that_was_set_back_makes_no_negative_length() -> None:
    assert timings_us(0, 3 * MS, (), authorize_ns=2 * MS)["authorize"] == 2_000
    assert timings_us(5 * MS, MS, ()) == {"resolve": 0, "queue": 0, "proxy_overhead": 0}


def test_attempt_is_told_with_what_it_came_to() -> None:
    attempt = an_attempt(started_ns=2 * MS, queue_ns=MS, sent_ns=4 * MS, ended_ns=5 * MS, said="denied")
    told = attempt_told(attempt, MS)
    assert (told["start_us"], told["queue_us"], told["connect_us"]) == (1_000, 1_000, 1_000)
    assert (told["upstream_ttfb_us"], told["took_us"]) == (None, 3_000)
    assert told["cause"] == "denied"
