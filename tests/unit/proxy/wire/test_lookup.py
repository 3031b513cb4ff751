"""Hosts by the system's resolver."""

import asyncio

import pytest

from proxy.wire.lookup import SharedLookup, look_up


async def test_system_resolver_knows_loopback_and_no_invalid_names() -> None:
    async with asyncio.timeout(30.0):
        assert "127.0.0.1" in await look_up("localhost", 80)
        with pytest.raises(OSError, match=r".+"):
            await look_up("nowhere.invalid", 80)
        with pytest.raises(OSError, match=r".+"):
            await look_up("x" * 64 + ".example", 80)


async def test_a_shared_lookup_is_made_anew_once_the_one_before_has_ended() -> None:
    shared = SharedLookup("localhost", 80)
    async with asyncio.timeout(30.0):
        found = await asyncio.gather(shared.addresses(), shared.addresses())
        assert found[0] == found[1] == await shared.addresses()
