"""Which names say that a value may be a secret: of keys, headers and variables. Pure. Better too many than too few."""

import re
import unicodedata
from typing import Final

_SECRET: Final = re.compile(
    r"token|secret|passw|passphrase|pwd|apikey|accesskey|privatekey|signingkey|credential|authoriz|auth$|cookie|session|bearer"
    r"|keypem|^key$|key$|connectionstring|dsn$|^pin$|salt$|signature"
)
# Names that look like it and stand for none.
_HARMLESS: Final = frozenset(
    {
        *("tokenvalidators", "secretkeyref", "secretstore", "rootkey", "tokenurl", "authurl", "authscope"),
        "idempotencykey",
    }
)


def is_secret_name(name: str) -> bool:
    """Whether a key, a header or a variable of this name may hold a secret. Case, dashes and look-alikes of Latin letters don't count."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    plain = re.sub(r"[^a-z0-9]", "", plain)
    return plain not in _HARMLESS and bool(_SECRET.search(plain))
