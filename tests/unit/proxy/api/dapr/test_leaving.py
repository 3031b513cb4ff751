"""Streams of the sidecar's own end with it, however long their callers keep them open."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.api.dapr.leaving import Leaving


async def silent(*first: int) -> AsyncIterator[int]:
    """A caller that asks so much and then nothing, but stays."""
    for request in first:
        yield request
    await asyncio.get_running_loop().create_future()


async def brief(*all_there_is: int) -> AsyncIterator[int]:
    """A caller that asks so much and is done."""
    for request in all_there_is:
        yield request


async def taken(leaving: Leaving, coming: AsyncIterator[int], took: list[int], at: int) -> None:
    """Take requests, and have the sidecar leave after so many."""
    async with asyncio.timeout(10.0):
        async for request in leaving.requests(coming):
            took.append(request)
            if len(took) == at:
                asyncio.get_running_loop().call_soon(leaving.begin)


async def test_a_wait_ends_once_the_sidecar_leaves() -> None:
    took: list[int] = []
    async with asyncio.timeout(30.0) as whole:
        with pytest.raises(TimeoutError):
            await taken(Leaving(), silent(1, 2), took, 2)
    assert took == [1, 2]
    assert not whole.expired()


async def test_a_stream_that_comes_later_ends_at_once() -> None:
    leaving = Leaving()
    leaving.begin()
    took: list[int] = []
    async with asyncio.timeout(30.0) as whole:
        with pytest.raises(TimeoutError):
            await taken(leaving, silent(), took, 0)
    assert not took
    assert not whole.expired()


async def test_a_stream_that_its_caller_ends_ends_as_ever() -> None:
    took: list[int] = []
    await taken(Leaving(), brief(1, 2, 3), took, 0)
    assert took == [1, 2, 3]
