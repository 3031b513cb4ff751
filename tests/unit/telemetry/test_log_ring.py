"""The latest lines of a log, in memory."""

import asyncio
import io
from contextlib import aclosing

from telemetry.log_ring import Kept, LogRing
from telemetry.logs import configure, get_logger


def test_ring_keeps_so_many_lines_and_so_many_characters() -> None:
    ring = LogRing(lines=3, chars=10)
    for line in ("1", "2", "3", "4"):
        ring.put(line)
    assert ring.since(0) == (["2", "3", "4"], 4, 1)
    ring.put("123456789")
    assert ring.since(2) == (["4", "123456789"], 5, 1)


def test_stream_keeps_what_is_written_to_it() -> None:
    ring, stream = LogRing(), io.StringIO()
    kept = Kept(stream, ring)
    kept.write("one\n")
    kept.flush()
    assert (stream.getvalue(), ring.since(0)[0]) == ("one\n", ["one"])


def test_lines_of_a_log_are_kept_as_they_are_written() -> None:
    ring, stream = LogRing(), io.StringIO()
    configure("cart", "host", stream=stream, ring=ring)
    get_logger("postern").info("ready", port=1)
    assert ring.since(0)[0] == stream.getvalue().splitlines()
    assert 'msg="ready"' in ring.since(0)[0][0]


async def test_follower_gets_lines_of_any_thread_and_is_told_what_it_missed() -> None:
    ring = LogRing(lines=2)
    ring.put("a")
    async with aclosing(ring.follow(0)) as pieces:
        assert await anext(pieces) == b"a\n"
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(anext(pieces))
            await asyncio.to_thread(ring.put, "b")
        assert waiting.result() == b"b\n"
        for line in ("c", "d", "e", "f"):
            ring.put(line)
        assert await anext(pieces) == "… 2 lines came faster than they were read\n".encode()
        assert await anext(pieces) == b"e\nf\n"
        assert ring.followers == 1
    assert ring.followers == 0
