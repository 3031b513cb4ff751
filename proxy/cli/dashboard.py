"""`postern dashboard`: the mesh of this host as a page in a browser, for as long as the command runs."""

import asyncio
import os
import secrets
import signal
import sys
import webbrowser
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.errors import CliError
from proxy.cli.fleet import root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import put, tell
from proxy.errors import ListenError

_TOKEN_BYTES = 32


def dashboard(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="where to listen on 127.0.0.1; 0: a free one")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="print the link alone, and open no browser")
    ] = False,
    runtime_path: RuntimePath = None,
) -> None:
    """Show the mesh in a browser: who calls whom and how that goes, sidecars, traces, calls and logs, live.

    Prints a link and serves it until Ctrl-C, on this machine alone. Whoever has the link sees what you see: it holds a token, of this run
    only.

    Example: postern dashboard
    """
    root = root_of(runtime_path, os.environ)
    with suppress(KeyboardInterrupt):  # the usual end
        asyncio.run(_serve(root, port, is_opened=not no_open and _has_browser()))


async def _serve(root: Path, port: int, *, is_opened: bool) -> None:
    # Loaded by this command alone.
    from proxy.cli.live.feed import Feed  # noqa: PLC0415
    from proxy.cli.live.service import Service  # noqa: PLC0415
    from telemetry.dashboard import assets  # noqa: PLC0415

    token = secrets.token_urlsafe(_TOKEN_BYTES)
    service = Service(Feed(root), await asyncio.to_thread(assets.load), token)
    redirect = root / f"dashboard-{os.getpid()}.html"

    def ready(address: str) -> None:
        link = f"http://{address}/#token={token}"
        put(link)
        sys.stdout.flush()
        if is_opened:
            _open(link, redirect)
        if sys.stderr.isatty():
            tell("Ctrl-C ends it")

    loop = asyncio.get_running_loop()
    serving = asyncio.current_task()
    assert serving is not None
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await service.run(f"127.0.0.1:{port}", ready)
    except ListenError as error:
        raise CliError(str(error), hint="--port 0 takes a free one") from error
    except asyncio.CancelledError:  # SIGTERM
        return
    finally:
        redirect.unlink(missing_ok=True)


def _has_browser() -> bool:
    """Whether somebody sits before it: not in scripts, nor on a machine that is reached from afar."""
    if not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def _open(link: str, redirect: Path) -> None:
    """Open it by a file that is ours alone: other users see the arguments of a browser's process, and they may not see the token."""
    page = f'<!doctype html><meta charset="utf-8"><title>postern</title><meta http-equiv="refresh" content="0;url={escape(link)}">'
    try:
        with open(
            os.open(redirect, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(page)
        webbrowser.open(redirect.as_uri())
    except (OSError, webbrowser.Error) as error:
        tell(f"no browser was opened: {error}")
