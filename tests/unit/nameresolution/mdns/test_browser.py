from __future__ import annotations

import random

import pytest

from nameresolution.mdns.browser import Browser
from nameresolution.mdns.records import Goodbye, Sighting


def seen(number: int, *, host: str = "10.0.0.1", instance: str = "", life_s: int = 120) -> Sighting:
    return Sighting(
        app_id="cart",
        instance_name=f"box:{number}.cart.local.",
        host=host,
        port=50000 + number,
        life_s=life_s,
        attributes=(("i", instance),) if instance else (),
    )


@pytest.fixture
def browser() -> Browser:
    return Browser(budget_s=2.0)


def run_until(browser: Browser, start: float, end: float) -> tuple[list[float], list[float]]:
    """Let time pass from one due moment to the next: when it asked and when it found nobody."""
    asked: list[float] = []
    silent: list[float] = []
    now = start
    while now <= end:
        due = browser.due(now)
        asked += [round(now, 3)] * len(due.ask)
        silent += [round(now, 3)] * len(due.silent)
        next_at = browser.next_at()
        if next_at is None:
            break
        assert next_at > now
        now = next_at
    return asked, silent


def test_cold_lookup_asks_early_and_often_then_reports_silence_at_the_budget(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    asked, silent = run_until(browser, 0.0, 10.0)
    assert asked[:5] == [0.0, 0.02, 0.12, 0.4, 0.9]
    assert asked[5:] == [1.15, 1.4, 1.65, 1.85]
    assert silent == [2.0]
    assert browser.asked("cart") == 9
    assert browser.next_at() is None


def test_cold_lookup_that_is_answered_asks_no_more_than_five_times(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.due(0.0)
    assert browser.hear(seen(1), 0.003)
    asked, silent = run_until(browser, 0.01, 5.0)
    assert asked == [0.02, 0.12, 0.4, 0.9]
    assert silent == []


def test_watch_during_a_flight_joins_it_and_after_it_begins_another(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.due(0.0)
    browser.watch("cart", 0.01)
    assert browser.due(0.015).ask == ()
    run_until(browser, 0.02, 3.0)
    browser.watch("cart", 5.0)
    assert browser.due(5.0).ask == ("cart",)


def test_late_turn_of_the_loop_asks_once_for_all_questions_missed(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    assert browser.due(0.5).ask == ("cart",)
    assert browser.next_at() == 0.9


def test_known_instance_that_answers_is_refreshed_every_30_seconds_and_never_expires(
    browser: Browser,
) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1), 0.0)
    run_until(browser, 0.0, 2.0)
    now, asks = 2.0, []
    while now < 400.0:
        due = browser.due(now)
        assert due.changed == ()
        if due.ask:
            asks.append(now)
            assert not browser.hear(seen(1), now + 0.001)
        next_at = browser.next_at()
        assert next_at is not None
        now = next_at
    assert 12 <= len(asks) <= 14
    assert len(browser.endpoints("cart")) == 1


def test_refresh_of_a_short_ttl_comes_at_80_percent_of_it(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1, life_s=20), 0.0)
    run_until(browser, 0.0, 2.0)
    assert browser.next_at() == 16.0


def test_dead_instance_expires_by_its_ttl_and_the_live_one_stays(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1), 0.0)
    browser.hear(seen(2), 0.0)
    browser.hear(seen(2), 100.0)
    assert browser.due(119.9).changed == ()
    assert browser.due(120.0).changed == ("cart",)
    assert [endpoint.port for endpoint in browser.endpoints("cart")] == [50002]
    assert not browser.is_lost("cart")


def test_last_instance_that_falls_silent_is_lost_and_asked_for_until_it_is_back(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1), 0.0)
    run_until(browser, 0.0, 119.0)
    assert browser.due(120.0).changed == ("cart",)
    assert browser.is_lost("cart")
    asked, _ = run_until(browser, 120.0, 200.0)
    assert len(asked) >= 2
    assert browser.hear(seen(1), 200.0)
    assert not browser.is_lost("cart")


def test_goodbye_removes_at_once_and_only_that_instance(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1, instance="a"), 0.0)
    browser.hear(seen(2, instance="b"), 0.0)
    assert browser.leave(Goodbye(instance_name="box:1.cart.local.", instance="a")) == ("cart",)
    assert [endpoint.instance for endpoint in browser.endpoints("cart")] == ["b"]
    assert not browser.has_left("cart")
    assert browser.leave(Goodbye(instance_name="box:2.cart.local.")) == ("cart",)
    assert browser.has_left("cart")
    assert not browser.is_lost("cart")


def test_goodbye_of_another_instance_id_under_the_same_name_changes_nothing(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1, instance="new"), 0.0)
    assert browser.leave(Goodbye(instance_name="box:1.cart.local.", instance="old")) == ()


def test_same_host_name_and_pid_on_two_hosts_are_two_instances(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1), 0.0)
    browser.hear(seen(1, host="10.0.0.2"), 0.0)
    assert len(browser.endpoints("cart")) == 2


def test_second_address_under_an_instance_id_hides_no_other(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    browser.hear(seen(1, instance="a"), 0.0)
    assert browser.hear(seen(1, instance="a", host="10.0.0.2"), 1.0)
    assert [endpoint.host for endpoint in browser.endpoints("cart")] == ["10.0.0.1", "10.0.0.2"]


def test_instances_of_unwatched_or_forgotten_names_are_not_held(browser: Browser) -> None:
    assert not browser.hear(seen(1), 0.0)
    browser.watch("cart", 0.0)
    browser.hear(seen(1), 0.0)
    browser.forget("cart")
    assert browser.endpoints("cart") == ()
    assert browser.watched() == ()
    assert browser.next_at() is None


def test_invented_instances_are_bounded(browser: Browser) -> None:
    browser.watch("cart", 0.0)
    for number in range(1500):
        browser.hear(seen(number), 0.0)
    assert len(browser.endpoints("cart")) == 1000


def test_lossy_link_of_30_percent_each_way_resolves_99_of_100_cold_lookups() -> None:
    chance = random.Random(7)
    resolved = 0
    for _ in range(2000):
        browser = Browser(budget_s=2.0)
        browser.watch("cart", 0.0)
        now: float | None = 0.0
        while now is not None and not browser.endpoints("cart"):
            if browser.due(now).ask and chance.random() > 0.3 and chance.random() > 0.3:
                browser.hear(seen(1), now)
            now = browser.next_at()
        resolved += bool(browser.endpoints("cart"))
    assert resolved > 2000 * 0.995
