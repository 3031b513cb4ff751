"""The audit log: one JSON line for each request, granted or refused, and for each change of the authority.

Append-only and separate from the debug log. Never holds a token or a key. A line that can't be written fails the
request that it is about: what is not recorded is not granted.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from sentry.errors import StoreError


class AuditLog:
    """One file (0600), or nothing when `path` is None. Writes are small and block."""

    def __init__(self, path: Path | None, clock: Callable[[], datetime]) -> None:
        """Open for appending. Raises StoreError."""
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None
        if path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._descriptor = os.open(path, flags, 0o600)
            except OSError as error:
                raise StoreError(str(path), f"can't be opened for the audit log: {error.strerror}") from error

    def write(self, event: str, facts: Mapping[str, object]) -> None:
        """Append one line. Raises StoreError."""
        if self._descriptor is None:
            return
        moment = self._clock().isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **facts}, separators=(",", ":")) + "\n"
        try:
            os.write(self._descriptor, line.encode())
        except OSError as error:
            raise StoreError(str(self._path), f"audit line can't be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
