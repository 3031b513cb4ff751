"""What people are shown in place of the error texts that JSON and spans keep. Pure."""

import re
from typing import Final

_CODE: Final = re.compile(r"Code\((\d{1,4})\): (.+)", re.DOTALL)
_LEAST_STATUS: Final = 100  # of HTTP; gRPC's codes are below


def error_shown(error: str) -> str:
    """A span's error: `500 Internal Server Error` for `Code(500): Internal Server Error`, and a gRPC code by its name alone.

    Any other text is left as it is.
    """
    found = _CODE.fullmatch(error)
    if found is None:
        return error
    number, text = found.groups()
    return f"{number} {text}" if int(number) >= _LEAST_STATUS else text
