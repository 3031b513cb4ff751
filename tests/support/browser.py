"""A real Chromium, driven over a pipe by the DevTools protocol: pages are loaded, clicked, typed into, read and photographed.

Source: Chrome DevTools Protocol (Target, Page, Runtime, Input, Emulation); messages on descriptors 3 and 4 end with a NUL.
"""

import asyncio
import base64
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.errors import SupportError

CHROMIUM: Final = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
START_S: Final = 30.0
CALL_S: Final = 20.0
WAIT_S: Final = 20.0
END_S: Final = 10.0
POLL_S: Final = 0.05
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-proxy-server", "--remote-debugging-pipe"),
)
# Descriptors 3 and 4 are what the browser looks for.
_LAUNCH: Final = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
_MESSAGE_BYTES: Final = 1 << 26
_KEYS: Final = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


@dataclass
class Page:
    """One tab. `said`: what it wrote to the console, and errors that nobody caught."""

    browser: "Browser"
    target: str
    session: str
    said: list[str] = field(default_factory=list)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to this tab."""
        return await self.browser.call(method, parameters, self.session)

    async def open(self, url: str) -> None:
        """Go to a page. Raises: SupportError where it can't be loaded."""
        answer = await self.call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise SupportError(f"{url}: {answer['errorText']}")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited. Raises: SupportError for what it throws."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            told = answer["exceptionDetails"]
            raise SupportError(str(told.get("exception", told).get("description", told["text"])))
        return answer["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = WAIT_S) -> Any:
        """The first value of an expression that counts as true; of an element, True. Raises: SupportError, if none comes."""
        look = f"(async () => {{ const found = await ({script}); return found instanceof Node || found; }})()"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with suppress(SupportError):  # a page that is being loaded throws
                        if value := await self.evaluate(look):
                            return value
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            shown = await self.evaluate("document.body?.innerText ?? ''")
            raise SupportError(f"never true: {script}\nsaid: {self.said}\nshown: {shown[:2_000]}") from None

    async def text(self, selector: str = "main") -> str:
        """What an element shows."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def press(self, key: str, *, modifiers: int = 0) -> None:
        """One key, down and up; modifiers: 8 is Shift."""
        facts: dict[str, Any] = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": _KEYS[key],
            "modifiers": modifiers,
        }
        if key == "Enter":
            facts["text"] = "\r"
        await self.call("Input.dispatchKeyEvent", type="keyDown", **facts)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def look(self, width: int, height: int, *, scheme: str = "light") -> None:
        """Be a window of so many pixels, in a light or a dark scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def close(self) -> None:
        """Close the tab."""
        await self.browser.call("Target.closeTarget", {"targetId": self.target})

    async def photograph(self) -> bytes:
        """A PNG of the window."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


class Browser:
    """One Chromium. Mutable state: answers that are awaited, by number, and the open pages by session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._awaited: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def page(self) -> Page:
        """A new tab, with a console that is listened to."""
        target = (await self.call("Target.createTarget", {"url": "about:blank"}))["targetId"]
        attached = await self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, target, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        return page

    async def call(
        self, method: str, parameters: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        """One command. Raises: SupportError for what it refuses."""
        self._number += 1
        number = self._number
        answer = self._awaited[number] = asyncio.get_running_loop().create_future()
        told: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            told["sessionId"] = session
        self._writer.write(json.dumps(told).encode() + b"\0")
        async with asyncio.timeout(CALL_S):
            found = await answer
        if "error" in found:
            raise SupportError(f"{method}: {found['error'].get('message')}")
        result: dict[str, Any] = found.get("result", {})
        return result

    async def read(self) -> None:
        """Hand out answers and what pages say, until the browser is gone."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                told = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                waiting = self._awaited.pop(told.get("id"), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
                page = self._pages.get(told.get("sessionId", ""))
                if page is not None:
                    page.said += _said(told)


def _said(told: dict[str, Any]) -> list[str]:
    facts = told.get("params", {})
    match told.get("method"):
        case "Runtime.consoleAPICalled":
            return [" ".join(str(part.get("value", part.get("description"))) for part in facts["args"])]
        case "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            return [str(details.get("exception", {}).get("description", details["text"]))]
        case "Log.entryAdded":
            return [f"{facts['entry']['text']} {facts['entry'].get('url', '')}"]
    return []


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """A browser of its own, with its profile in a folder; it ends with the block."""
    to_it, from_it = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_it[0], from_it[1])]
    for fd in (to_it[0], from_it[1]):
        os.close(fd)
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _LAUNCH, str(ends[0]), str(ends[1]), *command),
        pass_fds=ends,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    for fd in ends:
        os.close(fd)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_MESSAGE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_it[0], "rb", 0))
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(to_it[1], "wb", 0))
    browser = Browser(reader, writer)
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(browser.read())
            async with asyncio.timeout(START_S):
                await browser.call("Browser.getVersion", {})
            yield browser
            with suppress(SupportError, TimeoutError):
                await browser.call("Browser.close", {})
            reading.cancel()
    finally:
        writer.close()
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for it; kill its group, which is ours alone, if it stays."""
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
