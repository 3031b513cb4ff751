"""The access log of one sidecar: what flags and a Configuration say of it, its lines, and the file or collector that they go to; and
the log, where a collector gets it, too.
"""

import asyncio

from msgspec.structs import replace

from policies.rules.configuration import AccessLogConfig, ConfigurationValues, LoggingConfig
from proxy.control.call_lines import CallLines
from proxy.control.tracing_setup import log_export
from proxy.errors import ConfigError
from proxy.settings.values import AccessLogSettings, Settings
from telemetry.line_file import LineFile
from telemetry.line_form import LineFilter, LineForm, parse_form
from telemetry.logs import get_logger
from telemetry.metrics import Meters

_FORM = frozenset({"access-log-format", "access-log-headers"})
_UNUSED = "spec.logging.accessLog has no effect without --access-log"


class LogOutputs:
    """Owns the file and what exports. `lines`: None where there is no access log; `export`: None where no collector is wanted.

    Mutable state: what of the Configuration is in force.
    """

    def __init__(self, settings: Settings, configuration: ConfigurationValues, meters: Meters) -> None:
        """Raises: ConfigError."""
        logging = configuration.logging
        self.lines: CallLines | None = None
        self.export = log_export(configuration.tracing, settings, meters)
        self._settings = settings
        self._in_force = logging.access
        self._file: LineFile | None = None
        self._log = get_logger("postern")
        wanted = settings.access_log
        if wanted is None:
            if logging.access != AccessLogConfig():
                self._log.warning(_UNUSED)
            return
        form, chosen = of_both(wanted, settings, logging.access)
        if not wanted.is_otlp:
            self._file = _file(wanted, meters)
        taker = self._file or self.export
        assert taker is not None
        self.lines = CallLines(form, chosen, taker.put, taker.lose, hides_paths=logging.obfuscate_urls)

    def change(self, logging: LoggingConfig) -> None:
        """Go by another Configuration from now on, before decisions are made anew; a form that can't be used changes nothing."""
        if self.lines is None:
            if logging.access not in (self._in_force, AccessLogConfig()):
                self._log.warning(_UNUSED)
            self._in_force = logging.access
            return
        self.lines.hides_paths = logging.obfuscate_urls
        wanted = self._settings.access_log
        if wanted is None or logging.access == self._in_force:
            return
        try:
            self.lines.form, self.lines.chosen = of_both(wanted, self._settings, logging.access)
            self._in_force = logging.access
        except ConfigError as error:
            self._log.error("access log not changed, the old form stays in force", reason=str(error))

    async def run(self) -> None:
        """Write and export until cancelled; what is left, `close` writes."""
        async with asyncio.TaskGroup() as tasks:
            if self._file is not None:
                tasks.create_task(self._file.run())
            if self.export is not None:
                tasks.create_task(self.export.run())

    async def close(self) -> None:
        """Write what is left, and close the file; what is left for a collector is sent, for a bounded time."""
        if self._file is not None:
            self._file.close()
        if self.export is not None:
            await self.export.close()


def _file(wanted: AccessLogSettings, meters: Meters) -> LineFile:
    try:
        return LineFile(
            wanted.path,
            limit_bytes=wanted.max_bytes,
            keep=wanted.keep,
            lost=lambda count: meters.reports_lost.add("line", amount=count),
        )
    except OSError as error:
        raise ConfigError((f"--access-log {wanted.path}: {error.strerror}",)) from error


def of_both(
    wanted: AccessLogSettings, settings: Settings, written: AccessLogConfig
) -> tuple[LineForm, LineFilter]:
    """What flags and variables say, and of the rest what a Configuration does. Raises: ConfigError."""
    given, form = settings.given, wanted.form
    if not (_FORM & given or "POSTERN_ACCESS_LOG_FORMAT" in settings.variables):
        try:
            form = parse_form(written.format, written.headers)
        except ValueError as error:
            raise ConfigError((f"spec.logging.accessLog: {error}",)) from error
    chosen = wanted.chosen
    if written.min_status is not None and "access-log-min-status" not in given:
        chosen = replace(chosen, min_status=written.min_status)
    if written.slower_s is not None and "access-log-slower" not in given:
        chosen = replace(chosen, slower_ns=int(written.slower_s * 1e9))
    if written.sample is not None and "access-log-sample" not in given:
        chosen = replace(chosen, every=written.sample)
    return form, chosen
