"""Addresses of hosts by the system's resolver. It can't be interrupted and may hang for longer than anybody waits."""

import asyncio
import socket
import threading

Found = tuple[str, ...] | OSError


def _begin(host: str, port: int) -> asyncio.Future[Found]:
    """In a thread that nobody waits for at the end of the process, and that takes none from others' work."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Found] = loop.create_future()

    def tell(found: Found) -> None:
        if not answer.done():
            answer.set_result(found)

    def ask() -> None:
        found: Found
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except OSError as error:
            found = error
        except UnicodeError as error:  # a label that is empty or too long
            found = OSError(str(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name="lookup", daemon=True).start()
    return answer


async def look_up(host: str, port: int) -> tuple[str, ...]:
    """IP addresses in the system's order (RFC 6724). Raises OSError."""
    return _told(await _begin(host, port))


class SharedLookup:
    """One host's lookups. Mutable state: the one under way, for which all wait who ask meanwhile: there is never more than one thread."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._under_way: asyncio.Future[Found] | None = None

    async def addresses(self) -> tuple[str, ...]:
        """As `look_up`."""
        if self._under_way is None or self._under_way.done():
            self._under_way = _begin(self._host, self._port)
        under_way = self._under_way
        await asyncio.wait([under_way])  # which a caller that gives up leaves alone
        return _told(under_way.result())


def _told(found: Found) -> tuple[str, ...]:
    if isinstance(found, OSError):
        raise found
    return found
