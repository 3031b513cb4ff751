"""`python -I -m sentry`: reads flags, serves until told to stop. Exit codes: 0 clean exit, 1 failure, 2 bad flags."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from sentry.config import Settings, parse_settings
from sentry.errors import SentryError, SettingsError
from sentry.undumpable import forbid_dumps
from telemetry.failures import causes
from telemetry.standard_files import hold_standard_files

_LOG = logging.getLogger("sentry")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "type": "log",
            "scope": "postern.sentry",
            "app_id": "dapr-sentry",
            "msg": record.getMessage(),
        }
        return json.dumps(fields)


def main(arguments: Sequence[str]) -> int:
    """Run one sentry."""
    hold_standard_files()
    os.umask(0o077)
    try:
        settings = parse_settings(arguments, os.environ)
    except SettingsError as error:
        for fault in error.faults:
            sys.stderr.write(f"postern sentry: {fault}\n")
        return 2
    _configure_logs(settings)
    try:
        forbid_dumps()
    except OSError as error:
        _LOG.warning(
            "other processes of this user may read this one's memory, private keys included: %s", error
        )
    if settings.unused_flags:
        _LOG.warning("accepted without effect: %s", ", ".join(settings.unused_flags))
    try:
        asyncio.run(_serve(settings))
    except Exception as error:
        told = causes(error, (SentryError,))
        if told is None:
            raise
        for cause in told:
            _LOG.error("%s", cause)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    from sentry.server import SentryServer, Started, announce  # noqa: PLC0415 -- bad flags answer without gRPC

    server = SentryServer(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)

    def on_started(started: Started) -> None:
        _LOG.info("%s listens on %s", started.sentry_id, ", ".join(started.addresses))
        if settings.ready_fd is not None:
            announce(settings.ready_fd, started)

    await server.serve(on_started)


def _configure_logs(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s sentry %(message)s")
    handler.setFormatter(_JsonLines() if settings.log_as_json else plain)
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
    logging.basicConfig(level=levels.get(settings.log_level, logging.INFO), handlers=[handler])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
