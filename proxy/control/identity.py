"""Holds this workload's SVID and trust bundle, and renews them in place for as long as the sidecar lives.

Owns when to ask again (at half of the life left on receipt, urgently in its last fifth) and what to say about it;
`sentry.client` knows how to ask. A failed renewal keeps what is held: it is used until it ends, and its end is
reported, never hidden.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from sentry import renewal_time
from sentry.client import Svid
from sentry.errors import FetchError

if TYPE_CHECKING:
    from tenacity import RetryCallState

_LOG: Final = logging.getLogger("postern.identity")
# Sleeps are cut into pieces, so that a wall clock that jumps or a machine that slept is noticed within a minute.
_MAX_NAP_S: Final = 60.0


class SvidSource(Protocol):
    """Where SVIDs come from: `sentry.client.SvidClient`."""

    async def fetch(self, app_id: str, namespace: str, trust_domain: str) -> Svid:
        """A fresh one. Raises FetchError."""


class WorkloadName(Struct, frozen=True, kw_only=True):
    """Who we want to be."""

    app_id: str
    namespace: str
    trust_domain: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/{self.app_id}"


class Observe(Protocol):
    """Told of each answer of the source."""

    def __call__(self, failed_at: str | None, *, first: bool) -> None:
        """`failed_at`: the step that failed, as FetchError names it; `first`: no SVID was held before."""


class Clocks(Struct, frozen=True, kw_only=True):
    """Wall and monotonic time, and chance in [0, 1)."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


class _Held(Struct, frozen=True, kw_only=True):
    svid: Svid
    received_at: float
    life_s: float
    renew_after_s: float


class Identity:
    """The one owner of the SVID.

    State: `_held` (replaced whole), `_failures` since the last success, `_last_error`. Callbacks run on the loop's
    thread in the order of subscription and must not block.
    """

    def __init__(
        self,
        source: SvidSource,
        name: WorkloadName,
        *,
        clocks: Clocks | None = None,
        observe: Observe | None = None,
    ) -> None:
        """Nothing is fetched before `run`."""
        self._observe = observe
        self._source = source
        self._name = name
        self._clocks = clocks or Clocks()
        self._held: _Held | None = None
        self._failures = 0
        self._renewals = 0
        self._last_error: str | None = None
        self._is_fetching = False
        self._first = asyncio.Event()
        self._wake = asyncio.Event()
        self._callbacks: list[Callable[[Svid], None]] = []

    @property
    def current(self) -> Svid | None:
        """What is held, expired or not; None before the first."""
        return None if self._held is None else self._held.svid

    @property
    def is_expired(self) -> bool:
        """Whether what is held has ended."""
        left = self._seconds_left()
        return left is not None and left <= 0

    def subscribe(self, callback: Callable[[Svid], None]) -> None:
        """Call `callback` with each new SVID, and at once with the one held, if any."""
        self._callbacks.append(callback)
        if self._held is not None:
            callback(self._held.svid)

    def renew_now(self) -> None:
        """Ask for a new SVID without waiting for its time (after a change of authority, or by hand)."""
        self._wake.set()

    async def first(self, timeout: float) -> Svid:
        """Wait for the first SVID. Raises FetchError with the last failure when it takes longer than `timeout` s."""
        try:
            async with asyncio.timeout(timeout):
                await self._first.wait()
        except TimeoutError as error:
            reason = self._last_error or "sentry has not answered yet"
            raise FetchError(
                "sentry_conn", f"no identity for {self._name} after {timeout:g} s: {reason}"
            ) from error
        if self._held is None:
            raise FetchError("sentry_conn", f"no identity for {self._name}")
        return self._held.svid

    async def run(self) -> None:
        """Fetch, then renew for ever; ends by cancellation only."""
        while True:
            svid = await self._fetch_with_retry()
            if self._accept(svid):
                await self._wait_due()
            else:
                await self._nap(self._retry_delay_s())

    def status(self) -> dict[str, str | int | float | None]:
        """For humans and health: state is pending, held, renewing or expired."""
        held = self._held
        left = self._seconds_left()
        return {
            "state": self._state(left),
            "spiffe_id": str(self._name if held is None else held.svid.spiffe_id),
            "seconds_left": None if left is None else round(left, 3),
            "not_after": None if held is None else held.svid.not_after.isoformat(),
            "serial": None if held is None else held.svid.serial,
            "issuer": None if held is None else held.svid.issuer,
            "issuer_not_after": None
            if held is None or held.svid.issuer_not_after is None
            else held.svid.issuer_not_after.isoformat(),
            "mesh": None if held is None else held.svid.bundle.mesh_hash(),
            "renewals": self._renewals,
            "failures": self._failures,
            "last_error": self._last_error,
        }

    def _state(self, left: float | None) -> str:
        if left is None:
            return "pending"
        if left <= 0:
            return "expired"
        return "renewing" if self._is_fetching else "held"

    def _seconds_left(self) -> float | None:
        """By the clock that says less: the wall's, or the time that has really passed since receipt."""
        held = self._held
        if held is None:
            return None
        passed = self._clocks.monotonic() - held.received_at
        return min(held.svid.not_after.timestamp() - self._clocks.wall(), held.life_s - passed)

    def _accept(self, svid: Svid) -> bool:
        """Hold it and report it; one that cannot be put to use (no descriptor left, a broken key) leaves the old one in force."""
        before, self._held = self._held, self._take(svid)
        try:
            for callback in tuple(self._callbacks):
                callback(svid)
        except (OSError, ValueError) as error:
            self._held = before
            self._note(FetchError("leaf", f"it can't be put to use: {error}"))
            return False
        if before is not None:
            self._renewals += 1
        self._failures = 0
        self._last_error = None
        self._first.set()
        if self._observe is not None:
            self._observe(None, first=before is None)
        _LOG.info("SVID %s received, serial %s, %.0f s left", svid.spiffe_id, svid.serial, self._held.life_s)
        return True

    def _take(self, svid: Svid) -> _Held:
        life_s = svid.not_after.timestamp() - self._clocks.wall()
        return _Held(
            svid=svid,
            received_at=self._clocks.monotonic(),
            life_s=life_s,
            renew_after_s=renewal_time.renewal_delay_s(life_s, self._clocks.chance()),
        )

    async def _wait_due(self) -> None:
        while (delay := self._due_in_s()) > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(min(delay, _MAX_NAP_S)):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._wake.clear()

    def _due_in_s(self) -> float:
        left, held = self._seconds_left(), self._held
        if left is None or held is None:
            return 0.0
        return left - (held.life_s - held.renew_after_s)

    async def _fetch_with_retry(self) -> Svid:
        self._is_fetching = True
        try:
            return await self._fetch()
        except FetchError as error:
            self._note(error)
            return await self._retry()
        finally:
            self._is_fetching = False

    async def _fetch(self) -> Svid:
        return await self._source.fetch(self._name.app_id, self._name.namespace, self._name.trust_domain)

    async def _retry(self) -> Svid:
        from tenacity import AsyncRetrying, retry_if_exception_type  # noqa: PLC0415 -- 30 ms, only after a failure

        async def attempt() -> Svid:
            try:
                return await self._fetch()
            except FetchError as error:
                self._note(error)
                raise

        def wait(_: "RetryCallState") -> float:
            return self._retry_delay_s()

        retrying = AsyncRetrying(retry=retry_if_exception_type(FetchError), wait=wait, sleep=self._nap)
        await self._nap(self._retry_delay_s())
        return await retrying(attempt)

    async def _nap(self, delay_s: float) -> None:
        """Sleep, but let `renew_now` cut it short."""
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _retry_delay_s(self) -> float:
        return renewal_time.retry_delay_s(self._failures, self._seconds_left(), self._clocks.chance())

    def _note(self, error: FetchError) -> None:
        self._failures += 1
        self._last_error = str(error)
        if self._observe is not None:
            self._observe(error.step, first=self._held is None)
        left, held = self._seconds_left(), self._held
        tail = "none is held" if left is None else f"the one held has {left:.0f} s left"
        is_urgent = left is not None and held is not None and renewal_time.is_urgent(left, held.life_s)
        level = logging.ERROR if is_urgent else logging.WARNING
        _LOG.log(
            level, "SVID of %s not renewed (attempt %d): %s; %s", self._name, self._failures, error, tail
        )
