"""Addresses as endpoints and listeners carry them: `host:port`, or `unix:/path`. Pure.

Not by `telemetry.hosts.split_address`, which nameresolution and sentry use: engines import nothing of telemetry.
"""


def join_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets and maybe empty, and port of `host:port`. Raises: ValueError."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"{address!r} is neither unix:/path nor host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
