"""A relay of nothing but h2 on uvloop, run as a process: what the portable engine's libraries alone cost on this machine.

Forwards streams as they are, without a look at headers, limits, retries, metrics or traces. Two of them make the two hops: the caller's
listens in plaintext and dials with mutual TLS, the callee's the other way round. Prints `{"port": N}` once it listens.
"""

import argparse
import asyncio
import json
import ssl
import sys
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import uvloop

_WINDOW = 4 * 1024 * 1024
_Headers = list[tuple[bytes, bytes]]


class Peer(asyncio.Protocol):
    """One end of a connection pair; `other` gets every stream's frames under its own stream id there."""

    def __init__(self, *, client: bool) -> None:
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.other: Peer | None = None
        self.ids: dict[int, int] = {}
        self.early: list[bytes] = []
        self._transport: Any = None
        self._flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open wide windows: nothing here applies back-pressure."""
        self._transport = transport
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self.h2.increment_flow_control_window(_WINDOW)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        """Pass every event on."""
        if self.other is None:
            self.early.append(data)
            return
        for event in self.h2.receive_data(data):
            self._pass(event, self.other)
        self.flush_soon()
        self.other.flush_soon()

    def _pass(self, event: h2.events.Event, other: "Peer") -> None:
        if isinstance(event, h2.events.RequestReceived):
            far = other.h2.get_next_available_stream_id()
            self.ids[event.stream_id], other.ids[far] = far, event.stream_id
            other.h2.send_headers(far, event.headers, end_stream=event.stream_ended is not None)
        elif isinstance(event, h2.events.ResponseReceived):
            other.h2.send_headers(
                self.ids[event.stream_id], event.headers, end_stream=event.stream_ended is not None
            )
        elif isinstance(event, h2.events.DataReceived):
            ended = event.stream_ended is not None
            other.h2.send_data(self.ids[event.stream_id], event.data or b"", end_stream=ended)
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            other.h2.send_headers(self.ids[event.stream_id], event.headers, end_stream=True)

    def flush_soon(self) -> None:
        """One write a loop turn."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and (data := self.h2.data_to_send()):
            self._transport.write(data)


async def serve(upstream: int, listen_tls: ssl.SSLContext | None, dial_tls: ssl.SSLContext | None) -> None:
    """Relay until the process ends; each accepted connection gets one of its own upstream."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:

        def accept() -> Peer:
            near = Peer(client=False)
            tasks.create_task(join(near))
            return near

        async def join(near: Peer) -> None:
            name = "" if dial_tls is not None else None
            _, far = await loop.create_connection(
                lambda: Peer(client=True), "127.0.0.1", upstream, ssl=dial_tls, server_hostname=name
            )
            far.other, near.other = near, far
            for peer in (near, far):
                for data in peer.early:
                    peer.data_received(data)

        server = await loop.create_server(accept, "127.0.0.1", 0, ssl=listen_tls)
        sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
        sys.stdout.flush()
        await server.serve_forever()


def context(side: Any, files: list[str]) -> ssl.SSLContext:
    """Mutual TLS 1.3 with ALPN h2, from chain, key and roots."""
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.set_alpn_protocols(["h2"])
    chain, key, roots = files
    made.load_cert_chain(chain, key)
    made.load_verify_locations(roots)
    return made


def main() -> None:
    """Read the flags and relay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--listen-tls", nargs=3, metavar=("CHAIN", "KEY", "ROOTS"))
    parser.add_argument("--dial-tls", nargs=3, metavar=("CHAIN", "KEY", "ROOTS"))
    flags = parser.parse_args()
    listen = context(ssl.PROTOCOL_TLS_SERVER, flags.listen_tls) if flags.listen_tls else None
    dial = context(ssl.PROTOCOL_TLS_CLIENT, flags.dial_tls) if flags.dial_tls else None
    uvloop.run(serve(flags.upstream, listen, dial))


if __name__ == "__main__":
    main()
