"""The keys of token issuers: found by OpenID discovery, at their own URL or in a file; had in the background, and anew now and then."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from policies.rules.tokens import KeySource
from proxy.deciding.bearer import Key, KeysError, read_keys
from proxy.deciding.remote import KeysState
from proxy.wire.web_client import WebClient
from telemetry.logs import get_logger

FETCH_S: Final = 10.0
RENEW_S: Final = 900.0  # so long a key that its issuer withdrew may still count
MIN_RENEW_S: Final = 600.0  # as Dapr: for a token with an unknown key no sooner than this after the last time
_REREAD_S: Final = 5.0  # between looks at a file of keys
_MIN_REREAD_S: Final = 1.0
_MAX_FILE_BYTES: Final = 1 << 20
_RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class IssuerKeys:
    """Those of one issuer. Mutable state: what was had, when, and the last error."""

    def __init__(self, source: KeySource, web: WebClient, tell: Callable[[], None]) -> None:
        self._issuer = source.issuer
        self._url = source.url
        self._file = Path(source.file) if source.file else None
        self._web = web
        self._tell = tell
        self._log = get_logger("postern.middleware")
        self._asked = asyncio.Event()
        self._keys: tuple[Key, ...] | None = None
        self._error = ""
        self._had_at: float | None = None

    @property
    def state(self) -> KeysState:
        """What deciders see."""
        least_s = MIN_RENEW_S if self._file is None else _MIN_REREAD_S
        is_old = self._had_at is None or time.monotonic() - self._had_at >= least_s
        return KeysState(self._keys, self._error, (is_old or self._asked.is_set()) and not self._error)

    def want(self, _: str) -> None:
        """Somebody shows a key that is not known."""
        if self.state.may_renew:
            self._asked.set()

    async def run(self) -> None:
        """Fetch them until cancelled."""
        failures = 0
        while True:
            before = (self._keys, self._error)
            try:
                self._keys, self._error = await self._fetch(), ""
            except (
                OSError,
                TimeoutError,
                ValueError,
            ) as error:  # ValueError: KeysError, and a URL that is none
                wait_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                self._error = str(error) or f"no answer within {FETCH_S:g} s"
                self._log.warning(
                    "keys not fetched", issuer=self._issuer, reason=self._error, again_in_s=wait_s
                )
            else:
                failures, wait_s = 0, RENEW_S if self._file is None else _REREAD_S
            self._had_at = time.monotonic()
            is_news = self._asked.is_set() or (self._keys, self._error) != before
            self._asked.clear()
            if is_news:
                self._tell()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._asked.wait()

    async def _fetch(self) -> tuple[Key, ...]:
        if self._file is not None:
            return await self._read(self._file)
        url = self._url or await self._discovered()
        answer = await self._web.fetch(url, timeout_s=FETCH_S)
        try:
            return read_keys(answer.body)
        except KeysError as error:
            raise KeysError(f"{url}: {error}") from error

    async def _read(self, path: Path) -> tuple[Key, ...]:
        try:
            return read_keys(await asyncio.to_thread(_start_of, path))
        except KeysError as error:
            raise KeysError(f"{path}: {error}") from error

    async def _discovered(self) -> str:
        """OpenID Connect Discovery 1.0 §4: where the issuer says that its keys are."""
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        answer = await self._web.fetch(url, timeout_s=FETCH_S)
        try:
            told = json.loads(answer.body)
            issuer, found = told["issuer"], told["jwks_uri"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise KeysError(f"{url}: it has no issuer or no jwks_uri") from error
        if issuer != self._issuer:
            raise KeysError(f"{url} is of the issuer {issuer!r}, not of {self._issuer!r}")
        if not isinstance(found, str) or not found.startswith(("https://", "http://")):
            raise KeysError(f"{url}: its jwks_uri is not a URL")
        if self._issuer.startswith("https://") and not found.startswith("https://"):
            raise KeysError(f"{url}: its jwks_uri is not https")
        return found


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)
