"""Reloads what an operator changed in the store: all of it, if all is valid, or nothing.

A missing, torn or wrong set of files leaves the authority as it is and is reported once; roots that were added by
hand (the overlap of a root's replacement) reach every workload with its next certificate.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sentry.audit import AuditLog
from sentry.authority import Authority, Holdings, StoredBundle
from sentry.errors import BundleError, SentryError, StoreError

_LOG: Final = logging.getLogger("sentry")


class StoreWatch:
    """Compares the store with what was last taken from it. State: that, and the last fault reported."""

    def __init__(
        self,
        authority: Authority,
        load: Callable[[], StoredBundle | None],
        audit: AuditLog,
        clock: Callable[[], datetime],
    ) -> None:
        """`load` reads the store and may block."""
        self._authority = authority
        self._load = load
        self._audit = audit
        self._clock = clock
        self._taken: StoredBundle | None = None
        self.fault: str | None = None

    def look(self) -> bool:
        """Take up a change, if there is one and it holds; True if it was taken. Blocks for a few file reads."""
        try:
            stored = self._load()
            if stored == self._taken:
                self.fault = None
                return False
            holdings = self._judge(stored)
            current = self._authority.holdings
            # A root's key that was taken away is news: kept in memory, it would be written back with the next issuer.
            is_news = holdings != current or (holdings.root_key is None) != (current.root_key is None)
            if is_news:
                self._take_up(holdings)
        except SentryError as error:
            self._report(str(error))
            return False
        self._taken = stored
        self.fault = None
        return is_news

    def _take_up(self, holdings: Holdings) -> None:
        before, after = self._authority.bundle.mesh_hash(), holdings.bundle.mesh_hash()
        self._audit.write("authority-reloaded", {"mesh_before": before, "mesh": after})
        self._authority.replace(holdings)
        _LOG.info("reloaded the changed authority: mesh %s, was %s", after, before)

    def _judge(self, stored: StoredBundle | None) -> Holdings:
        now = self._clock()
        if stored is None:
            raise StoreError("store", "all of its files are gone")
        holdings = Holdings.parse(stored, now)
        if holdings.issuer.not_after <= now:
            raise BundleError(
                f"the issuer's certificate ended at {holdings.issuer.not_after:%Y-%m-%dT%H:%M:%SZ}"
            )
        return holdings

    def _report(self, fault: str) -> None:
        if fault != self.fault:
            _LOG.error("the changed store is invalid; the authority in memory stays in force: %s", fault)
        self.fault = fault
