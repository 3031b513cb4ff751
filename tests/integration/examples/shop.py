"""Starts the boutique's services wired to each other directly, with no mesh between them."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[3]
STOP_S = 10.0

# Each after the ones that it calls.
ORDER = (
    "currency",
    "catalog",
    "cart",
    "payment",
    "reviews",
    "shipping",
    "recommendation",
    "checkout",
    "frontend",
)
_READY = re.compile(r" listening on (127\.0\.0\.1:[0-9]+)$")


class NotStartedError(Exception):
    """A service ended before it said where it listens."""


@contextmanager
def run_service(name: str, env: Mapping[str, str]) -> Iterator[str]:
    """Run one service on a free port; gives its address once it listens."""
    plain = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [sys.executable, "-m", f"examples.boutique.services.{name}"],
        cwd=ROOT,
        env={**plain, "APP_PORT": "0", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _read_address(process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def run_shop() -> Iterator[Mapping[str, str]]:
    """Run every service; gives their addresses by name."""
    addresses: dict[str, str] = {}
    with ExitStack() as stack:
        for name in ORDER:
            env = {f"{n.upper()}_SERVICE_ADDR": a for n, a in addresses.items()}
            env |= {"REVIEWS_ADDR": addresses.get("reviews", "")}
            addresses[name] = stack.enter_context(run_service(name, env))
        yield MappingProxyType(addresses)


def _read_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        found = _READY.search(line.rstrip())
        if found:
            # What comes later is read and dropped, lest a full pipe stop the service.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found[1]
        seen.append(line)
    raise NotStartedError("".join(seen))
