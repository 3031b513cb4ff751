"""The file component over a real file that changes while a directory runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from nameresolution.directory import Directory
from nameresolution.resolver import AppName, EndpointSet
from nameresolution.static import StaticResolver

CART = AppName("cart", "default")


async def test_edit_takes_effect_in_seconds_and_a_bad_file_keeps_the_old_set(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("cart: 10.0.0.1:1")
    resolver = StaticResolver(path, "default")
    directory = Directory([resolver])
    arrived: asyncio.Queue[EndpointSet] = asyncio.Queue()
    directory.subscribe(arrived.put_nowait)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(directory.run())
        directory.want(CART)
        assert [found.address for found in (await arrived.get()).endpoints] == ["10.0.0.1:1"]

        edited_at = time.monotonic()
        path.write_text("cart: [10.0.0.1:1, 10.0.0.2:2]")
        assert len((await arrived.get()).endpoints) == 2
        assert time.monotonic() - edited_at < 15.0

        path.write_text("cart: [nonsense")
        resolver.reload()
        assert "nonsense" in str(resolver.fault)
        kept = directory.get(CART)
        assert kept is not None
        assert len(kept.endpoints) == 2

        path.unlink()
        resolver.reload()
        assert directory.get(CART) == kept

        path.write_text("other: 10.0.0.3:3")
        gone = await arrived.get()
        assert gone.endpoints == ()
        assert "has no entry for cart.default" in directory.explain(CART)
        assert resolver.fault is None
        running.cancel()
