"""URLs as faults may show them: they go to logs, status and terminals, where no password belongs. Pure."""

import re
from typing import Final

REMOVED: Final = "(removed)"
# A password may hold `/` or `?`; all before the last `@` goes then.
_USER = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*:)?//|).*@", re.DOTALL)
_MORE = re.compile(r"[?#].*", re.DOTALL)


def shown_url(text: str) -> str:
    """A URL without its user information, query and fragment."""
    return _MORE.sub(lambda found: f"{found[0][0]}{REMOVED}", _USER.sub(rf"\1{REMOVED}@", text))
