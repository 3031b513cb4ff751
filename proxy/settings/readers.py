"""Reads typed values out of flags and environment and collects what is wrong with them, so that all faults are reported at once."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from nameresolution.errors import RuntimeRootError
from nameresolution.runtime_root import runtime_root
from proxy.settings.flags import Given
from proxy.settings.units import parse_quantity
from proxy.settings.values import LogLevel
from telemetry.durations import parse_duration_s

Word = TypeVar("Word", bound=str)
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")
_SWITCH = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "fatal": "fatal",
}


class FlagReader:
    """Typed reading with faults collected in `faults`; after a fault a method returns a harmless stand-in.

    Owned by one parse; only its own methods and the parse write `faults`.
    """

    def __init__(self, given: Given, env: Mapping[str, str]) -> None:
        self.given = given
        self.env = env
        self.faults = list(given.faults)

    def fault(self, where: str, met: str, expected: str) -> None:
        """Note one fault."""
        self.faults.append(f"{where}: {met}, expected {expected}")

    def text(self, flag: str) -> str | None:
        """The text as given."""
        return self.given.last(flag)

    def or_env(self, flag: str, variable: str, default: str) -> str:
        """The flag, else the variable, else the default; empty counts as absent."""
        return self.text(flag) or self.env.get(variable) or default

    def matching(self, flag: str, text: str, shape: re.Pattern[str], expected: str) -> str:
        """`text` if it has the shape, else a fault."""
        if shape.fullmatch(text) is None:
            self.fault(f"--{flag}", repr(text), expected)
        return text

    def choice(self, flag: str, allowed: tuple[Word, ...], default: Word, *, variable: str = "") -> Word:
        """One of a few words, in any case."""
        given = self.text(flag) or (self.env.get(variable) if variable else None)
        if not given:
            return default
        for word in allowed:
            if word == given.lower():
                return word
        where = f"--{flag}" if self.text(flag) else variable
        self.fault(where, repr(given), " or ".join((", ".join(allowed[:-1]), allowed[-1])))
        return default

    def log_level(self) -> LogLevel:
        """The log level; `warning` is `warn`."""
        return _LEVELS[self.choice("log-level", tuple(_LEVELS), "info")]

    def maybe_switch(self, flag: str) -> bool | None:
        """A switch with three states."""
        text = self.text(flag)
        if text is None:
            return None
        if text not in _SWITCH:
            self.fault(f"--{flag}", repr(text), "true or false")
        return _SWITCH.get(text)

    def switch(self, flag: str, *, default: bool, variable: str = "") -> bool:
        """A switch, else the variable."""
        found = self.maybe_switch(flag)
        text = self.env.get(variable) if variable and found is None else None
        if text:
            found = _SWITCH.get(text.lower())
            if found is None:
                self.fault(variable, repr(text), "true or false")
        return default if found is None else found

    def number(self, flag: str, default: int) -> int:
        """A whole number, with a sign if need be."""
        text = self.text(flag)
        if not text:
            return default
        if _NUMBER.fullmatch(text) is None:
            self.fault(f"--{flag}", repr(text), "a whole number")
            return default
        return int(text)

    def count(self, flag: str, default: int) -> int:
        """A whole number from 1."""
        found = self.number(flag, default)
        if found < 1:
            self.fault(f"--{flag}", str(found), "a whole number from 1")
        return found

    def natural(self, flag: str) -> int | None:
        """A whole number that is not negative, or nothing."""
        found = self.number(flag, -1)
        return found if found >= 0 else None

    def port(self, flag: str, *, absent: tuple[str, ...]) -> int | None:
        """A port; the texts in `absent` mean none was given."""
        text = self.text(flag)
        if text is None or text in absent:
            return None
        if _NUMBER.fullmatch(text) is None or not 0 <= int(text) <= 65535:
            self.fault(f"--{flag}", repr(text), "a port number from 0 to 65535")
            return None
        return int(text)

    def duration(self, flag: str, default: float) -> float:
        """Seconds of a Go duration that is not negative."""
        text = self.text(flag)
        if not text:
            return default
        try:
            seconds = parse_duration_s(text)
        except ValueError as error:
            self.fault(f"--{flag}", repr(text), str(error))
            return default
        if seconds < 0:
            self.fault(f"--{flag}", repr(text), "a duration that is not negative")
        return seconds

    def period(self, flag: str, default: float) -> float:
        """Seconds of a Go duration above zero."""
        seconds = self.duration(flag, default)
        if seconds == 0:
            self.fault(f"--{flag}", repr(self.text(flag)), "a duration above zero, such as 5s")
        return seconds

    def size(self, flag: str, *, old: str = "", old_factor: int = 1) -> int | None:
        """Bytes of a quantity; the deprecated flag counts in units of `old_factor`, and only without the new one."""
        text = self.text(flag)
        if not text:
            older = self.number(old, -1) if old else -1
            return older * old_factor if older >= 0 else None
        try:
            return parse_quantity(text)
        except ValueError as error:
            self.fault(f"--{flag}", repr(text), str(error))
            return None

    def words(self, flag: str, *, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Comma-separated words."""
        words = tuple(word.strip() for word in (self.text(flag) or "").split(",") if word.strip())
        for word in words:
            if allowed and word not in allowed:
                self.fault(f"--{flag}", repr(word), " or ".join(allowed))
        return words

    def host(self, flag: str, default: str) -> str:
        """One host, without the brackets of IPv6."""
        given = self.text(flag)
        return self._bare(flag, given.strip()) if given else default

    def hosts(self, flag: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Comma-separated hosts, without the brackets of IPv6."""
        return tuple(self._bare(flag, word) for word in self.words(flag)) or default

    def _bare(self, flag: str, host: str) -> str:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%\w+)?", bare) is None:
            self.fault(f"--{flag}", repr(host), "an address such as 127.0.0.1 or [::1]")
        return bare

    def ip(self, flag: str, *, variable: str) -> str | None:
        """An IP address from the flag or the variable."""
        given = self.text(flag) or self.env.get(variable)
        if not given:
            return None
        try:
            return str(ip_address(given.strip("[]")))
        except ValueError:
            self.fault(f"--{flag}" if self.text(flag) else variable, repr(given), "an IP address")
            return None

    def path(self, flag: str) -> Path | None:
        """A path that need not exist."""
        given = self.text(flag)
        return Path(given).expanduser() if given else None

    def folder(self, flag: str) -> Path | None:
        """A folder that exists."""
        given = self.text(flag)
        return self._existing(flag, given, folder=True) if given else None

    def folders(self, flag: str) -> tuple[Path, ...]:
        """Folders that exist; commas part them too."""
        given = [word for text in self.given.every(flag) for word in text.split(",") if word]
        return tuple(self._existing(flag, text, folder=True) for text in given)

    def file(self, flag: str) -> Path | None:
        """A file that exists."""
        given = self.text(flag)
        return self._existing(flag, given, folder=False) if given else None

    def files(self, flag: str) -> tuple[Path, ...]:
        """Files that exist; commas part them too."""
        given = [word for text in self.given.every(flag) for word in text.split(",") if word]
        return tuple(self._existing(flag, text, folder=False) for text in given)

    def _existing(self, flag: str, text: str, *, folder: bool) -> Path:
        """Absolute: it is shown where the working directory is another, and read there by commands."""
        path = Path(text).expanduser().absolute()
        if folder and not path.is_dir():
            self.fault(
                f"--{flag}", f"{text!r} does not exist" if not path.exists() else repr(text), "a folder"
            )
        elif not folder and not path.is_file():
            self.fault(f"--{flag}", f"{text!r} does not exist" if not path.exists() else repr(text), "a file")
        return path

    def content(self, flag: str, path: Path) -> bytes:
        """What a file holds."""
        try:
            return path.read_bytes()
        except OSError as error:
            self.fault(f"--{flag}", f"{str(path)!r}: {error.strerror}", "a file that can be read")
            return b""

    def runtime_root(self) -> Path | None:
        """The runtime root, made if absent."""
        try:
            return runtime_root(self.text("runtime-path"), self.env)
        except RuntimeRootError as error:
            self.faults.append(f"--runtime-path: {error}")
            return None
