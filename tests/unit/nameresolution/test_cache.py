from __future__ import annotations

import pytest

from nameresolution.cache import Cache, Lifetimes
from nameresolution.merge import Own
from nameresolution.resolver import AppName, Endpoint, SourceFailure

CART = AppName("cart", "default")
ONE = Endpoint(host="10.0.0.1", port=1, instance="a", source="mdns")
TWO = Endpoint(host="10.0.0.2", port=1, instance="b", source="mdns")
NOBODY = SourceFailure(reason="nobody answered", missing=True)
BROKEN = SourceFailure(reason="no interface")
TIMES = Lifetimes(budget_s=2.0, negative_s=0.25, forget_s=30.0, stale_s=100.0, max_names=3)


@pytest.fixture
def cache() -> Cache:
    return Cache(("host registry", "mdns"), TIMES)


def test_want_begins_one_flight_for_all_callers(cache: Cache) -> None:
    assert cache.want(CART, 0.0)
    assert not cache.want(CART, 0.1)
    assert CART not in cache.sets


def test_report_of_the_first_source_is_published_without_waiting_for_the_second(cache: Cache) -> None:
    cache.want(CART, 0.0)
    published = cache.report("mdns", CART, (ONE,), 0.1)
    assert published is not None
    assert cache.sets[CART].endpoints == (ONE,)
    assert not cache.want(CART, 0.2)


def test_report_unchanged_is_not_published_again(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("mdns", CART, (ONE,), 0.1)
    assert cache.report("mdns", CART, (ONE,), 0.2) is None


def test_report_negative_only_when_every_source_has_spoken(cache: Cache) -> None:
    cache.want(CART, 0.0)
    assert cache.report("host registry", CART, NOBODY, 0.0) is None
    published = cache.report("mdns", CART, NOBODY, 2.0)
    assert published is not None
    assert published.endpoints == ()
    assert published.tried == ("host registry: nobody answered", "mdns: nobody answered")


def test_negative_lasts_a_quarter_second_then_the_next_want_asks_again(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, NOBODY, 1.0)
    assert not cache.want(CART, 1.1)
    assert cache.next_at() == 1.25
    cache.tick(1.25)
    assert CART not in cache.sets
    assert cache.want(CART, 1.3)


def test_name_that_a_whole_lookup_missed_is_remembered_as_long_as_it_is_listened_for(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    assert not cache.was_missed(CART)
    cache.report("mdns", CART, NOBODY, 1.0)
    assert cache.was_missed(CART)
    cache.tick(40.0)
    assert not cache.was_missed(CART)


def test_negative_is_dropped_at_once_by_an_announcement(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, NOBODY, 1.0)
    assert cache.report("mdns", CART, (ONE,), 1.1) is not None
    cache.tick(1.3)
    assert cache.sets[CART].endpoints == (ONE,)


def test_announcement_after_the_negative_expired_is_published(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, NOBODY, 1.0)
    cache.tick(2.0)
    assert cache.report("mdns", CART, (ONE,), 20.0) is not None


def test_stranger_that_answers_first_does_not_end_the_flight(cache: Cache) -> None:
    foreign = Endpoint(host="10.0.0.3", port=1, source="mdns", attributes=(("m", "other"),))
    cache.identify(Own(instance="x", mesh="ours"), 0.0)
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    assert cache.report("mdns", CART, (foreign,), 0.1) is None
    ours = cache.report("mdns", CART, (foreign, ONE), 0.2)
    assert ours is not None
    assert ours.endpoints == (ONE,)


def test_only_strangers_end_as_a_negative_that_names_them(cache: Cache) -> None:
    foreign = Endpoint(host="10.0.0.3", port=1, source="mdns", attributes=(("ns", "shop"),))
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (foreign,), 0.1)
    (published,) = cache.tick(2.0).changed
    assert (
        published.tried[1] == "mdns: 1 endpoint, 1 ignored because it is in namespace 'shop', not 'default'"
    )


def test_tick_ends_a_flight_whose_sources_are_silent(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    assert cache.next_at() == 2.0
    (published,) = cache.tick(2.0).changed
    assert published.tried == ("host registry: nobody answered", "mdns: no answer within 2.0 s")


def test_goodbye_of_one_of_two_leaves_the_other_and_of_the_last_publishes_empty(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (ONE, TWO), 0.1)
    left = cache.report("mdns", CART, (TWO,), 5.0)
    assert left is not None
    assert left.endpoints == (TWO,)
    gone = cache.report("mdns", CART, NOBODY, 6.0)
    assert gone is not None
    assert gone.endpoints == ()
    cache.tick(6.3)
    assert cache.want(CART, 6.4)


def test_failed_source_keeps_its_endpoints_as_stale_until_their_age_ends(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (ONE,), 0.1)
    stale = cache.report("mdns", CART, BROKEN, 10.0)
    assert stale is not None
    assert stale.stale
    assert stale.endpoints == (ONE,)
    cache.report("mdns", CART, BROKEN, 60.0)
    assert cache.next_at() == 110.0
    (aged,) = cache.tick(110.0).changed
    assert aged.endpoints == ()


def test_stale_set_is_asked_for_again_and_recovers(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("mdns", CART, (ONE,), 0.1)
    cache.report("mdns", CART, BROKEN, 10.0)
    cache.tick(11.0)
    assert cache.want(CART, 12.0)
    fresh = cache.report("mdns", CART, (ONE,), 12.1)
    assert fresh is not None
    assert not fresh.stale


def test_name_that_nobody_has_is_forgotten(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.tick(2.0)
    cache.tick(2.25)
    assert cache.next_at() == 30.0
    assert cache.tick(30.0).forgotten == (CART,)
    assert cache.names() == ()
    assert cache.next_at() is None


def test_name_with_endpoints_is_never_forgotten(cache: Cache) -> None:
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (ONE,), 0.1)
    assert cache.next_at() is None
    assert cache.tick(10_000.0).forgotten == ()


def test_full_cache_makes_room_by_the_longest_unwanted_negative(cache: Cache) -> None:
    for number in range(3):
        cache.want(AppName(f"made-up-{number}", "default"), float(number) / 10)
    assert not cache.want(CART, 1.0)
    cache.tick(3.0)
    cache.tick(4.0)
    assert cache.want(CART, 5.0)
    assert cache.tick(5.0).forgotten == (AppName("made-up-0", "default"),)


def test_report_for_a_name_nobody_wants_is_ignored(cache: Cache) -> None:
    assert cache.report("mdns", CART, (ONE,), 0.0) is None
    assert cache.tried(CART) == ("not looked for yet",)


def test_identify_removes_foreign_endpoints(cache: Cache) -> None:
    foreign = Endpoint(host="10.0.0.3", port=1, source="mdns", attributes=(("m", "other"),))
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (ONE, foreign), 0.1)
    (changed,) = cache.identify(Own(instance="x", mesh="ours"), 1.0)
    assert changed.endpoints == (ONE,)


def test_identify_when_all_are_foreign_publishes_an_empty_set(cache: Cache) -> None:
    foreign = Endpoint(host="10.0.0.3", port=1, source="mdns", attributes=(("m", "other"),))
    cache.want(CART, 0.0)
    cache.report("host registry", CART, NOBODY, 0.0)
    cache.report("mdns", CART, (foreign,), 0.1)
    (changed,) = cache.identify(Own(instance="x", mesh="ours"), 1.0)
    assert changed.endpoints == ()
