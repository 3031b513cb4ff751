"""Keeps what handlers need from other servers: starts what a policy names, ends what it names no more, and tells of news."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from policies.rules.pipelines import Bearer, ClientCredentials, Middleware, OAuth2, Pipelines
from policies.rules.tokens import KeySource
from proxy.control.client_tokens import ClientToken
from proxy.control.issuer_keys import IssuerKeys
from proxy.control.sessions import Sessions
from proxy.deciding.login import Logins
from proxy.deciding.remote import KeysState, LoginState, TokenState
from proxy.wire.web_client import WebClient


class Fetching(Protocol):
    """One value on its way."""

    def want(self, what: str) -> None:
        """A call is held for it; `what` of it, where there are several."""

    async def run(self) -> None:
        """Fetch and renew it until cancelled."""


Origin = KeySource | ClientCredentials | OAuth2
"""What is fetched, and from where."""


class _Source:
    """Mutable state: the task, while one runs."""

    def __init__(self, origin: Origin, fetching: IssuerKeys | ClientToken | Sessions) -> None:
        self.origin = origin
        self.fetching = fetching
        self.task: asyncio.Task[None] | None = None


_KINDS: Final = {KeySource: IssuerKeys, ClientCredentials: ClientToken, OAuth2: Sessions}


class RemoteFetch:
    """See Remote. Mutable state: the sources by key; the TaskGroup while `run` is running, and who hears of news."""

    def __init__(self, web: WebClient) -> None:
        self._web = web
        self._sources: dict[str, _Source] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._hear: Callable[[str], None] = lambda _: None
        self.logins = Logins(secrets.token_bytes(32), lambda: secrets.token_urlsafe(24), time.time)

    def subscribe(self, hear: Callable[[str], None]) -> None:
        """Have keys of which there is news told."""
        self._hear = hear

    def configure(self, pipelines: Pipelines, keys: Iterable[KeySource] = ()) -> None:
        """Fetch what these need, and nothing else. What is fetched for equal settings goes on."""
        wanted: dict[str, Origin] = {source.key: source for source in keys}
        for one in (*pipelines.http, *pipelines.app):
            if (origin := _origin(one)) is not None:
                wanted[one.remote_key] = origin
        for key, source in list(self._sources.items()):
            if wanted.get(key) != source.origin:
                del self._sources[key]
                if source.task is not None:
                    source.task.cancel()
        for key, origin in wanted.items():
            if key not in self._sources:
                self._sources[key] = self._source(key, origin)
        self._start()

    def _source(self, key: str, origin: Origin) -> _Source:
        def tell(what: str = "") -> None:
            self._hear(f"{key}\n{what}" if what else key)

        return _Source(origin, _KINDS[type(origin)](origin, self._web, tell))

    def _start(self) -> None:
        if self._tasks is None:
            return
        for source in self._sources.values():
            if source.task is None:
                source.task = self._tasks.create_task(source.fetching.run())

    async def run(self) -> None:
        """Fetch until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._start()
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    def want(self, key: str) -> None:
        """A call is held for that key."""
        key, _, what = key.partition("\n")
        source = self._sources.get(key)
        if source is not None:
            source.fetching.want(what)

    def keys(self, source: KeySource) -> KeysState:
        """See Remote."""
        known = self._sources.get(source.key)
        found = None if known is None else known.fetching
        return found.state if isinstance(found, IssuerKeys) else KeysState()

    def token(self, middleware: ClientCredentials) -> TokenState:
        """See Remote."""
        source = self._sources.get(middleware.remote_key)
        found = None if source is None else source.fetching
        return found.state if isinstance(found, ClientToken) else TokenState()

    def session(self, middleware: OAuth2, session: str) -> bytes | None:
        """See Remote."""
        found = self._sessions(middleware)
        return None if found is None else found.header(session)

    def login(self, middleware: OAuth2, code: str) -> LoginState:
        """See Remote."""
        found = self._sessions(middleware)
        return LoginState() if found is None else found.login(code)

    def _sessions(self, middleware: OAuth2) -> Sessions | None:
        source = self._sources.get(middleware.remote_key)
        found = None if source is None else source.fetching
        return found if isinstance(found, Sessions) else None


def _origin(middleware: Middleware) -> Origin | None:
    """What a handler needs of another server; None for one that needs nothing."""
    if isinstance(middleware, Bearer):
        return middleware.keys
    return middleware if isinstance(middleware, ClientCredentials | OAuth2) else None
