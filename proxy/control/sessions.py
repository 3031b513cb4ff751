"""Sessions of browsers that logged in (`middleware.http.oauth2`): in memory, bounded, each until its token ends."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

from policies.rules.pipelines import OAuth2
from proxy.control.client_tokens import TokenAnswerError, ask_for_token
from proxy.deciding.remote import LoginState
from proxy.wire.web_client import WebClient
from telemetry.logs import get_logger

MAX_SESSIONS: Final = 10_000  # the oldest goes first
_LIFE_S: Final = 3_600.0  # of a session whose token does not say when it ends
_MAX_LIFE_S: Final = 43_200.0
_MAX_LOGINS: Final = 256  # that are on their way or just over
_LOGIN_S: Final = 60.0  # so long the outcome of a login is told


class Sessions:
    """Of one component. Mutable state: sessions by id, and logins by code, each with its end."""

    def __init__(self, middleware: OAuth2, web: WebClient, tell: Callable[[str], None]) -> None:
        self._middleware = middleware
        self._web = web
        self._tell = tell
        self._log = get_logger("postern.middleware")
        self._sessions: dict[str, tuple[bytes, float]] = {}
        self._logins: dict[str, tuple[LoginState, float]] = {}
        self._codes: asyncio.Queue[str] = asyncio.Queue(_MAX_LOGINS)

    def header(self, session: str) -> bytes | None:
        """The header's value of a session in force."""
        value, ends_at = self._sessions.get(session, (None, 0.0))
        return value if ends_at > time.monotonic() else None

    def login(self, code: str) -> LoginState:
        """What came of a code."""
        return self._logins.get(code, (LoginState(), 0.0))[0]

    def want(self, code: str) -> None:
        """A browser waits for what comes of its code."""
        now = time.monotonic()
        self._logins = {known: one for known, one in self._logins.items() if one[1] > now}
        if code in self._logins or (len(self._logins) >= _MAX_LOGINS and not self._forget_failed()):
            return
        self._logins[code] = (LoginState(), now + _LOGIN_S)
        self._codes.put_nowait(code)

    def _forget_failed(self) -> bool:
        """Make room: codes that are none cost whoever makes them up nothing, and may keep nobody out."""
        failed = next((known for known, (state, _) in self._logins.items() if state.error), None)
        if failed is not None:
            del self._logins[failed]
        return failed is not None

    async def run(self) -> None:
        """Exchange codes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._finish(await self._codes.get()))

    async def _finish(self, code: str) -> None:
        state = await self._exchange(code)
        self._logins[code] = (state, time.monotonic() + _LOGIN_S)
        self._tell(code)

    async def _exchange(self, code: str) -> LoginState:
        """RFC 6749 §4.1.3."""
        one = self._middleware
        fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", one.redirect_url)]
        try:
            token = await ask_for_token(one, fields, ("header", "form"), self._web)
        except (OSError, TimeoutError, TokenAnswerError) as error:
            reason = str(error) or "no answer in time"
            self._log.warning("login failed", component=one.name, url=one.token_url, reason=reason)
            return LoginState(error=reason)
        life_s = min(token.life_s or _LIFE_S, _MAX_LIFE_S)
        session, now = secrets.token_urlsafe(32), time.monotonic()
        self._sessions = {known: held for known, held in self._sessions.items() if held[1] > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = (token.value, now + life_s)
        return LoginState(session=session, life_s=int(life_s))
