"""The directory: one cache over all sources, kept fresh by them, pushed to subscribers; the shell around `cache`.

A call never waits here: `get` is a dictionary lookup, `want` only starts a flight, and what it finds is pushed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from nameresolution.cache import Cache, Lifetimes
from nameresolution.merge import Own
from nameresolution.resolver import AppName, EndpointSet, Found, Instance, Resolver, SourceFailure

_LOG = logging.getLogger("postern.nameresolution")

Subscriber = Callable[[EndpointSet], None]

_RESTART_S = (0.5, 2.0, 8.0, 30.0)  # a source that broke is started again, ever more slowly
_TELL_TIMEOUT_S = 5.0
_PAUSE_PER_NAME_S = 10e-6  # between two looks at all names, which take a tenth of it: many names must not take the loop's time


class Directory:
    """Owns the cache, the subscribers and the tasks of the sources. All methods belong to one event loop."""

    def __init__(
        self,
        resolvers: Sequence[Resolver],
        *,
        clock: Callable[[], float] = time.monotonic,
        lifetimes: Lifetimes | None = None,
        mesh: str | None = None,
    ) -> None:
        self._resolvers = tuple(resolvers)
        self._clock = clock
        self._cache = Cache((resolver.source for resolver in self._resolvers), lifetimes)
        self._cache.identify(Own(mesh=mesh), self._clock())
        self._subscribers: dict[object, Subscriber] = {}
        self._retired: list[Resolver] = []  # replaced, and not yet ended
        self._instance: Instance | None = None  # announced
        self._announcing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._replaced = asyncio.Event()
        self._running = asyncio.Event()

    async def run(self) -> None:
        """Keep everything fresh until cancelled. A source that breaks is logged, reported and started again."""
        async with asyncio.TaskGroup() as tasks:
            begun = self._begin(tasks)
            tasks.create_task(self._keep_replacing(tasks, begun))
            self._running.set()
            await self._age()

    def replace(self, resolvers: Sequence[Resolver]) -> None:
        """Go by other sources from now on. They are begun and announce us before those there were are ended."""
        self._retired += self._resolvers
        self._resolvers = tuple(resolvers)
        for name in self._cache.replace_sources(
            (resolver.source for resolver in self._resolvers), self._clock()
        ):
            for resolver in self._resolvers:
                resolver.watch(name)
        self._replaced.set()
        self._changed.set()

    async def wait_running(self) -> None:
        """Return once the sources have been started; they may still be opening what they need."""
        await self._running.wait()

    def get(self, name: AppName) -> EndpointSet | None:
        """The newest set of a name; None while nothing is known of it; without endpoints when none was found."""
        return self._cache.sets.get(name)

    def want(self, name: AppName) -> None:
        """Have a name looked for unless that is under way or done; the outcome is pushed to the subscribers."""
        if self._cache.want(name, self._clock()):
            for resolver in self._resolvers:
                resolver.watch(name)
            self._changed.set()

    def is_watched(self, name: AppName) -> bool:
        """Whether news of a name is pushed: whoever appears under it is known within `lag_s`."""
        return self._cache.is_watched(name)

    def was_missed(self, name: AppName) -> bool:
        """Whether a whole lookup found nobody since the sources began to listen for a name: who appears now is heard at once."""
        return self._cache.was_missed(name)

    @property
    def lag_s(self) -> float:
        """How long after somebody appears under a watched name that may still be unknown here."""
        return max((resolver.lag_s for resolver in self._resolvers), default=0.0)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Have every new set pushed, synchronously on the loop; returns what ends that."""
        key = object()
        self._subscribers[key] = callback

        def end() -> None:
            self._subscribers.pop(key, None)

        return end

    def explain(self, name: AppName) -> str:
        """What was tried for a name and what blocked it, for people."""
        return "; ".join(self._cache.tried(name))

    @property
    def own(self) -> Own:
        """Who we are said to be, by which endpoints of others are left out."""
        return self._cache.own

    def ages(self, name: AppName) -> dict[str, float]:
        """How long ago each source gave news of a name, in seconds."""
        return self._cache.ages(name, self._clock())

    def known(self) -> tuple[EndpointSet, ...]:
        """Every set as it is now, ordered by name."""
        return tuple(sorted(self._cache.sets.values(), key=lambda found: str(found.name)))

    async def announce(self, instance: Instance) -> None:
        """Make our instance known through every source; one that cannot is logged, never fatal."""
        self.identify(instance.instance, instance.mesh)
        async with self._announcing:
            self._instance = instance
            await self._announce(instance)

    async def withdraw(self) -> None:
        """Take our instance back at once (goodbye); what we know of others stays."""
        async with self._announcing:
            self._instance = None
            await self._withdraw((*self._resolvers, *self._retired))

    def identify(self, instance: str, mesh: str | None) -> None:
        """Say who we are without announcing it: endpoints of another mesh are ignored from now on."""
        for changed in self._cache.identify(Own(instance=instance, mesh=mesh), self._clock()):
            self._publish(changed)
        self._changed.set()

    def _push(self, resolver: Resolver, name: AppName, found: Found) -> None:
        if resolver not in self._resolvers:  # it was replaced
            return
        source = resolver.source
        changed = self._cache.report(source, name, found, self._clock())
        self._changed.set()
        if changed is not None:
            self._publish(changed)

    def _publish(self, endpoints: EndpointSet) -> None:
        for subscriber in tuple(self._subscribers.values()):
            try:
                subscriber(endpoints)
            except Exception:  # noqa: BLE001 - one subscriber's fault must not keep the news from the others
                _LOG.exception("subscriber failed on %s", endpoints.name)

    def _begin(self, tasks: asyncio.TaskGroup) -> dict[Resolver, asyncio.Task[None]]:
        return {
            resolver: tasks.create_task(self._supervise(resolver), name=f"nameresolution {resolver.source}")
            for resolver in self._resolvers
        }

    async def _keep_replacing(
        self, tasks: asyncio.TaskGroup, running: dict[Resolver, asyncio.Task[None]]
    ) -> None:
        while True:
            await self._replaced.wait()
            self._replaced.clear()
            retired = tuple(self._retired)
            begun = self._begin(tasks)
            async with self._announcing:
                await self._hand_over(retired)
                del self._retired[: len(retired)]
            for resolver in retired:
                if (task := running.get(resolver)) is not None:
                    task.cancel()
            running = begun

    async def _hand_over(self, retired: Sequence[Resolver]) -> None:
        """Announce us by the sources in force, and take us back from those before: first where both tell the same place of us."""
        if self._instance is None:
            return
        sources = {resolver.source for resolver in self._resolvers}
        await self._withdraw([resolver for resolver in retired if resolver.source in sources])
        await self._announce(self._instance)
        await self._withdraw([resolver for resolver in retired if resolver.source not in sources])

    async def _announce(self, instance: Instance) -> None:
        await self._tell("announce", self._resolvers, lambda resolver: resolver.announce(instance))

    async def _withdraw(self, resolvers: Sequence[Resolver]) -> None:
        await self._tell("withdraw", resolvers, lambda resolver: resolver.withdraw())

    async def _supervise(self, resolver: Resolver) -> None:
        failures = 0

        def push(_: str, name: AppName, found: Found) -> None:
            self._push(resolver, name, found)

        while True:
            started_at = self._clock()
            try:
                await resolver.run(push)
                problem = "ended"
            except Exception as error:  # noqa: BLE001 - the boundary of one source: the others work on
                _LOG.exception("name resolution source %s failed", resolver.source)
                problem = f"{type(error).__name__}: {error}"
            failures = 0 if self._clock() - started_at > _RESTART_S[-1] else failures + 1
            for name in self._cache.names():
                self._push(resolver, name, SourceFailure(reason=f"failed ({problem}), starting again"))
            await asyncio.sleep(_RESTART_S[min(failures, len(_RESTART_S)) - 1])

    async def _age(self) -> None:
        while True:
            self._changed.clear()
            ticked = self._cache.tick(self._clock())
            for name in ticked.forgotten:
                for resolver in self._resolvers:
                    resolver.forget(name)
            for changed in ticked.changed:
                self._publish(changed)
            next_at = self._cache.next_at()
            wait_s = None if next_at is None else max(0.0, next_at - self._clock())
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(len(self._cache.names()) * _PAUSE_PER_NAME_S)

    async def _tell(
        self, verb: str, resolvers: Sequence[Resolver], call: Callable[[Resolver], Awaitable[None]]
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            for resolver in resolvers:
                tasks.create_task(self._tell_one(verb, resolver, call))

    async def _tell_one(
        self, verb: str, resolver: Resolver, call: Callable[[Resolver], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(_TELL_TIMEOUT_S):
                await call(resolver)
        except TimeoutError:
            _LOG.warning("%s: %s took longer than %s s", resolver.source, verb, _TELL_TIMEOUT_S)
        except Exception:  # noqa: BLE001 - a source that cannot announce must not keep the sidecar from serving
            _LOG.exception("%s: cannot %s", resolver.source, verb)
