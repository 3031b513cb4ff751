"""`component: file`: a fixed map from app-id to addresses, read again when the file changes.

A file that cannot be read or has a fault never replaces a good one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from nameresolution.errors import StaticFileError
from nameresolution.merge import FILE_SOURCE
from nameresolution.resolver import AppName, Endpoint, Found, Instance, Push, SourceFailure
from telemetry.hosts import split_address

_LOG = logging.getLogger("postern.nameresolution.file")

_POLL_S = 0.3  # an edit takes effect in less than a second
_MAX_BYTES = 4 << 20  # some 50,000 endpoints; a larger file is another file
_MAX_WEIGHT = 1000

Table: TypeAlias = Mapping[AppName, tuple[Endpoint, ...]]


def parse_table(text: str, own_namespace: str, path: Path) -> Table:
    """The map in a file, YAML or JSON: `id` (in our own namespace) or `id.namespace` to one or more addresses.

    An address is `host:port`, an IPv6 host in brackets, or a map of `address` and `weight`.

    Raises: StaticFileError with every fault.
    """
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StaticFileError(path, [" ".join(str(error).split())]) from error
    except RecursionError as error:
        raise StaticFileError(path, ["is nested too deeply"]) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise StaticFileError(path, ["expected a map of app-id to addresses"])
    faults: list[str] = []
    table: dict[AppName, tuple[Endpoint, ...]] = {}
    for key, value in loaded.items():
        name = _parse_name(key, own_namespace, faults)
        endpoints = _parse_endpoints(str(key), value, faults)
        if name is None:
            continue
        if name in table:
            faults.append(f"{key}: {name} is given twice")
        table[name] = endpoints
    if faults:
        raise StaticFileError(path, faults)
    return table


def _parse_name(key: object, own_namespace: str, faults: list[str]) -> AppName | None:
    parts = key.split(".") if isinstance(key, str) else []
    if len(parts) not in {1, 2} or not all(parts):
        faults.append(f"{key}: expected an app-id or app-id.namespace")
        return None
    return AppName(parts[0], parts[1] if len(parts) == 2 else own_namespace)


def _parse_endpoints(key: str, value: object, faults: list[str]) -> tuple[Endpoint, ...]:
    items = value if isinstance(value, list) else [value]
    if not items:
        faults.append(f"{key}: expected at least one address")
    endpoints: list[Endpoint] = []
    for number, item in enumerate(items):
        where = f"{key}[{number}]" if isinstance(value, list) else key
        endpoint = _parse_endpoint(where, item, faults)
        if endpoint is not None:
            endpoints.append(endpoint)
    return tuple(endpoints)


def _parse_endpoint(where: str, item: object, faults: list[str]) -> Endpoint | None:
    address, weight = item, 1
    if isinstance(item, dict):
        unknown = sorted(str(field) for field in item.keys() - {"address", "weight"})
        if unknown:
            faults.append(f"{where}: unknown field {', '.join(unknown)}, expected address and weight")
        address, weight = item.get("address"), item.get("weight", 1)
    host, port = _split_address(address)
    if not host or not 0 < port < 65536:
        faults.append(f"{where}: expected host:port, got {address!r}")
        return None
    if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= _MAX_WEIGHT:
        faults.append(f"{where}: expected a weight of 1 to {_MAX_WEIGHT}, got {weight!r}")
        return None
    return Endpoint(host=host, port=port, source=FILE_SOURCE, weight=weight)


def _split_address(address: object) -> tuple[str, int]:
    """Host and port, ("", 0) for an invalid address.

    Stricter than others, as people write the file: an IPv6 host needs its brackets, and no host has a slash or a blank.
    """
    if not isinstance(address, str):
        return "", 0
    host, port = split_address(address)
    is_loose = "/" in host or any(char.isspace() for char in host)
    return ("", 0) if is_loose or (":" in host and not address.startswith("[")) else (host, port)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise StaticFileError(path, [error.strerror or str(error)]) from error
    if len(data) > _MAX_BYTES:
        raise StaticFileError(path, [f"expected at most {_MAX_BYTES} bytes"])
    return data


class StaticResolver:
    """Owns the table, the bytes it came from and the watched names."""

    source = FILE_SOURCE
    lag_s = 0.0

    def __init__(self, path: Path, own_namespace: str) -> None:
        """Read the file.

        Raises: StaticFileError, so that a bad file is an error at start-up.
        """
        self._path = path
        self._namespace = own_namespace
        self._data = _read(path)
        self._table = parse_table(self._data.decode("utf-8", "replace"), own_namespace, path)
        self._fault: StaticFileError | None = None
        self._names: set[AppName] = set()
        self._push: Push | None = None

    @property
    def fault(self) -> StaticFileError | None:
        """Why the file as it is now is not in force, None if it is."""
        return self._fault

    async def run(self, push: Push) -> None:
        """Push what the file says of the watched names, and every change within a second, until cancelled."""
        self._push = push
        for name in tuple(self._names):
            push(FILE_SOURCE, name, self._find(name))
        while True:
            await asyncio.sleep(_POLL_S)
            self.reload()

    def reload(self) -> None:
        """Read the file now; if it changed and is good, push what changed, else keep the old table."""
        before = {name: self._find(name) for name in self._names}
        try:
            data = _read(self._path)
            if data == self._data:
                self._fault = None
                return
            self._table = parse_table(data.decode("utf-8", "replace"), self._namespace, self._path)
        except StaticFileError as error:
            if self._fault is None or self._fault.faults != error.faults:
                _LOG.warning("kept the previous endpoints: %s", error)
            self._fault = error
            return
        self._data, self._fault = data, None
        for name, found in before.items():
            if self._push is not None and self._find(name) != found:
                self._push(FILE_SOURCE, name, self._find(name))

    def watch(self, name: AppName) -> None:
        """Push what the file says of a name."""
        self._names.add(name)
        if self._push is not None:
            self._push(FILE_SOURCE, name, self._find(name))

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        self._names.discard(name)

    async def announce(self, instance: Instance) -> None:
        """Nothing: the file is the user's."""

    async def withdraw(self) -> None:
        """Nothing."""

    def _find(self, name: AppName) -> Found:
        note = f"; a newer version is not in force: {self._fault}" if self._fault is not None else ""
        missing = SourceFailure(reason=f"{self._path} has no entry for {name}{note}", missing=True)
        return self._table.get(name) or missing
