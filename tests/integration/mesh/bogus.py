"""A host that announces 400 instances of an app that it doesn't have: `python -m tests.integration.mesh.bogus APP MESH ADDRESS`.

Half of their ports refuse connections, behind the other half is somebody who knows no TLS.
"""

import asyncio
import sys

from nameresolution.interfaces import Interface
from nameresolution.mdns.packets import announcement
from nameresolution.mdns.records import make_advert
from nameresolution.mdns.sockets import Link
from nameresolution.resolver import Instance

INSTANCES = 400


async def main(app_id: str, mesh: str, address: str) -> None:
    """Announce until ended."""

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    servers = [
        await asyncio.start_server(garble, address, 20_000 + number) for number in range(0, INSTANCES, 2)
    ]
    link = Link(Interface(name="eth0", index=2, address=address))
    while True:
        for number in range(INSTANCES):
            bogus = Instance(
                app_id=app_id,
                namespace="default",
                host=address,
                port=20_000 + number,
                instance=f"bogus-{number}",
                mesh=mesh,
            )
            link.send(announcement(make_advert(bogus, "hostile", 1000 + number)))
            await asyncio.sleep(0.002)
        assert servers


asyncio.run(main(*sys.argv[1:]))
