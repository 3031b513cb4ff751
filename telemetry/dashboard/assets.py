"""The page's files, as they are in the package. Blocks on the disk."""

from collections.abc import Mapping
from importlib import resources

from msgspec import Struct

_KINDS = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}


class Asset(Struct, frozen=True, kw_only=True):
    """One file: its content type, and what it holds."""

    kind: bytes
    body: bytes


def load() -> Mapping[str, Asset]:
    """Every file by the path that it is asked for; the page itself is `/`."""
    found = {}
    for file in resources.files("telemetry.dashboard").joinpath("page").iterdir():
        name = file.name
        kind = _KINDS.get(name.rpartition(".")[2])
        if kind is not None:
            path = "/" if name == "index.html" else f"/{name}"
            found[path] = Asset(kind=kind, body=file.read_bytes())
    return found
