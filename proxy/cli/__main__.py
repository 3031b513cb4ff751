"""The postern command: finds out which command was given before anything large is loaded.

`sidecar`, `sentry`, `run`, `version` and `wait` start without the command-line framework; the rest goes through it.
Exit codes: 0 success, 1 failure, 2 usage error, 3 partial failure, 128+n after signal n.
"""

import os
import sys
from collections.abc import Sequence

from telemetry.standard_files import finish_output, hold_standard_files


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    hold_standard_files()
    try:
        return finish_output("postern", _run(list(sys.argv[1:] if argv is None else argv)))
    except KeyboardInterrupt:  # Ctrl-C before a command has handlers of its own
        return 130


def _run(words: list[str]) -> int:
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first == "sidecar":
        from proxy.__main__ import main as sidecar  # noqa: PLC0415 - each command loads only what it needs

        return sidecar(rest)
    if first == "sentry":
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-I", "-m", "sentry", *rest])  # noqa: S606 - our own interpreter, no shell
    if first == "run":
        from proxy.cli.run import main as run  # noqa: PLC0415

        return run(rest)
    if first in {"version", "--version", "-v"}:
        return _version(rest)
    if first == "wait":
        from proxy.cli.wait import main as wait  # noqa: PLC0415

        return wait(rest, os.environ)
    from proxy.cli.app import main as other  # noqa: PLC0415

    return other(words)


def _version(rest: Sequence[str]) -> int:
    from proxy.settings.version import VERSION, has_native  # noqa: PLC0415

    engine = "native" if has_native() else "portable"
    if list(rest) in (["-o", "json"], ["-ojson"], ["-o=json"], ["--output", "json"], ["--output=json"]):
        sys.stdout.write(
            f'{{"Cli version": "{VERSION}", "Runtime version": "{VERSION}", "Engine": "{engine}"}}\n'
        )
        return 0
    if rest[:1] in (["--help"], ["-h"]):
        sys.stdout.write("usage: postern version [-o json]\n")
        return 0
    if rest:
        sys.stderr.write(f"postern version: unexpected argument {rest[0]!r}, expected -o json or nothing\n")
        return 2
    sys.stdout.write(f"CLI version: {VERSION}\nRuntime version: {VERSION}\nEngine: {engine}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
