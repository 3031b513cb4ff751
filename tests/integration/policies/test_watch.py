"""Files that change under a running watch."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from policies.errors import DocumentError, Fault, UnreadError
from policies.reloading.loading import PolicySnapshot, PolicySources, load
from policies.reloading.watching import Read, watch
from policies.rules.access import Operation
from policies.rules.caller import Caller

POLL_S = 0.05
CALLER = Caller(trust_domain="public", namespace="default", app_id="app1")
DENY = "kind: Configuration\nspec: {accessControl: {defaultAction: deny}}\n"
ALLOW = "kind: Configuration\nspec: {accessControl: {defaultAction: allow}}\n"


@dataclass(kw_only=True)
class Seen:
    """What the watch told, in order; `changed` is set at each call."""

    new: list[PolicySnapshot] = field(default_factory=list)
    bad: list[DocumentError] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_new(self, snapshot: PolicySnapshot) -> None:
        self.new.append(snapshot)
        self.changed.set()

    def on_bad(self, error: DocumentError) -> None:
        self.bad.append(error)
        self.changed.set()

    async def wait_until(self, condition: Callable[["Seen"], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()

    @property
    def newest_allows(self) -> bool:
        operation = Operation(protocol="http", verb="GET", path="/x")
        return self.new[-1].access.evaluate(CALLER, operation).allowed


@asynccontextmanager
async def watching(sources: PolicySources, *, read: Read = load) -> AsyncIterator[Seen]:
    seen = Seen()
    current = load(sources)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(sources, current, seen.on_new, seen.on_bad, read=read, poll_s=POLL_S))
        try:
            yield seen
        finally:
            task.cancel()


def a_config(folder: Path, text: str) -> tuple[Path, PolicySources]:
    path = folder / "config.yaml"
    path.write_text(text)
    return path, PolicySources(config_paths=(path,), own_app_id="a", own_namespace="default")


async def test_changed_file_gives_a_new_generation(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, ALLOW)
    async with watching(sources) as seen:
        path.write_text(DENY)
        await seen.wait_until(lambda s: len(s.new) == 1)
        assert (seen.new[-1].generation, seen.newest_allows) == (2, False)
        path.write_text(ALLOW)
        await seen.wait_until(lambda s: len(s.new) == 2)
        assert (seen.new[-1].generation, seen.newest_allows) == (3, True)
    assert seen.bad == []


async def test_good_file_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, ALLOW)
    unread = UnreadError((Fault(path=path, line=0, field="", problem="was not read within 30 s"),))
    failures = iter((unread, unread))

    def read(sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
        for failure in failures:
            raise failure
        return load(sources, generation=generation)

    async with watching(sources, read=read) as seen:
        path.write_text(DENY)
        await seen.wait_until(lambda s: len(s.new) == 1)
    assert seen.bad == [unread, unread]
    assert not seen.newest_allows


async def test_bad_file_is_told_once_and_replaces_nothing(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, DENY)
    async with watching(sources) as seen:
        path.write_text("kind: Configuration\nspec: {accessControl: }\n")
        await seen.wait_until(lambda s: len(s.bad) == 1)
        assert "config.yaml:2" in str(seen.bad[0])
        path.unlink()
        await seen.wait_until(lambda s: len(s.bad) == 2)
        assert seen.new == []
        path.write_text(DENY)
        await seen.wait_until(lambda s: len(s.new) == 1)
    assert (seen.new[0].generation, len(seen.bad)) == (2, 2)


async def test_emptied_file_never_opens_the_door(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, DENY)
    async with watching(sources) as seen:
        path.write_text("")
        await seen.wait_until(lambda s: len(s.bad) == 1)
    assert seen.new == []


async def test_touched_file_with_the_same_content_changes_nothing(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, DENY)
    stale = replace(load(sources), generation=7, warnings=("from before",), fingerprint=())
    seen, told = Seen(), Seen()
    current = load(sources)
    async with asyncio.TaskGroup() as group:
        quiet = group.create_task(watch(sources, current, seen.on_new, seen.on_bad, poll_s=POLL_S / 10))
        os.utime(path, (1, 1))
        path.write_text(DENY + "# a note\n")
        # A second, slower watch that holds something else tells when the change has been there for long enough.
        slow = group.create_task(watch(sources, stale, told.on_new, told.on_bad, poll_s=POLL_S * 10))
        await told.wait_until(lambda s: len(s.new) == 1)
        quiet.cancel()
        slow.cancel()
    assert told.new[0].generation == 8
    assert seen.new == []


async def test_change_between_load_and_watch_is_seen(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, ALLOW)
    current = load(sources)
    path.write_text(DENY)
    seen = Seen()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(sources, current, seen.on_new, seen.on_bad, poll_s=POLL_S))
        await seen.wait_until(lambda s: len(s.new) == 1)
        task.cancel()
    assert not seen.newest_allows


async def test_file_moved_over_the_old_one_and_swapped_links_are_seen(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, ALLOW)
    async with watching(sources) as seen:
        (tmp_path / "next").write_text(DENY)
        (tmp_path / "next").replace(path)
        await seen.wait_until(lambda s: len(s.new) == 1)
        (tmp_path / "data").write_text(ALLOW)
        (tmp_path / "link").symlink_to("data")
        (tmp_path / "link").replace(path)
        await seen.wait_until(lambda s: len(s.new) == 2)
    assert seen.newest_allows


async def test_resources_that_come_and_go_are_seen(tmp_path: Path) -> None:
    sources = PolicySources(resources_paths=(tmp_path,), own_app_id="a", own_namespace="default")
    async with watching(sources) as seen:
        path = tmp_path / "r.yaml"
        path.write_text("kind: Resiliency\nmetadata: {name: mesh}\nspec: {targets: {apps: {b: {}}}}\n")
        await seen.wait_until(lambda s: len(s.new) == 1)
        assert seen.new[0].resiliency.resources == (("mesh", ""),)
        path.unlink()
        await seen.wait_until(lambda s: len(s.new) == 2)
    assert seen.new[1].resiliency.resources == ()


async def test_slowly_written_file_is_not_read_in_between(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, DENY)
    text = (
        "kind: Configuration\nspec:\n  accessControl:\n    defaultAction: allow\n    policies:\n"
        + "".join(
            f"    - {{appId: app{n}, trustDomain: public, namespace: default, defaultAction: deny}}\n"
            for n in range(40)
        )
    )
    async with watching(sources) as seen:
        with path.open("w") as file:
            for line in text.splitlines(keepends=True):
                file.write(line)
                file.flush()
                await asyncio.sleep(0)
        await seen.wait_until(lambda s: len(s.new) >= 1)
    assert (len(seen.new), len(seen.bad)) == (1, 0)
    assert not seen.newest_allows


async def test_asked_to_read_it_reads_what_stands_there_and_tells(tmp_path: Path) -> None:
    path, sources = a_config(tmp_path, ALLOW)
    seen, asked, current = Seen(), asyncio.Event(), load(sources)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(sources, current, seen.on_new, seen.on_bad, poll_s=60.0, asked=asked))
        asked.set()
        await seen.wait_until(lambda now: [each.generation for each in now.new] == [1])
        path.write_text("kind: Configuration\nspec: {accessControl: {defaultAction: maybe}}\n")
        asked.set()
        await seen.wait_until(lambda now: "`maybe` is not an action" in "".join(map(str, now.bad)))
        task.cancel()
