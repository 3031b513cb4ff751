"""URLs that documents name. Pure."""

from urllib.parse import SplitResult, urlsplit


def http_url(text: str) -> SplitResult | None:
    """The parts of an http or https URL with a host, without user information or a fragment; None: it is not one."""
    try:
        parts = urlsplit(text)
        is_sound = parts.hostname and parts.port != 0 and text.isascii() and text.isprintable()
    except ValueError:
        return None
    is_known = parts.scheme in ("http", "https") and not parts.username and not parts.fragment
    return parts if is_sound and is_known else None
