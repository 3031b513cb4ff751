"""What is between Python and Rust is written down in both, so that an extension of other sources is noticed before it is used."""

import hashlib
import re
import sys
import tokenize
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

import proxy.engine.native
from proxy.engine.native.seam import REBUILD, SEAM
from proxy.engine.portable.engine import PortableEngine
from proxy.engine.selection import choose
from proxy.errors import ConfigError
from tests.support.processes import REPOSITORY
from tests.unit.proxy.engine.test_selection import made_by

LAYOUT = {
    tokenize.ENCODING,
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
}
HERE = REPOSITORY / "proxy" / "engine" / "native"


def test_seam_is_the_stubs_here_and_in_rust() -> None:
    with (HERE / "_native.pyi").open("rb") as stub:
        words = [token.string for token in tokenize.tokenize(stub.readline) if token.type not in LAYOUT]
    wanted = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
    rust = (HERE / "crates" / "binding" / "src" / "lib.rs").read_text(encoding="utf-8")
    written = re.search(r'const SEAM: &str = "(\w+)";', rust)
    assert written is not None
    told = f"the stub has changed: write {wanted} as SEAM in seam.py and crates/binding/src/lib.rs, and `make native-dev`"
    assert (SEAM, written[1]) == (wanted, wanted), told


@pytest.fixture(params=["another", None])
def stale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extension of other sources, or one from before these were told."""
    found = ModuleType("proxy.engine.native._native")
    found.__spec__ = ModuleSpec(found.__name__, None)
    if request.param is not None:
        vars(found)["seam"] = request.param
    monkeypatch.setitem(sys.modules, found.__name__, found)
    monkeypatch.setattr(proxy.engine.native, "_native", found, raising=False)


@pytest.mark.usefixtures("stale")
def test_extension_of_other_sources_is_refused_and_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        choose("native")
    (fault,) = caught.value.faults
    assert fault == (
        "--engine native: it was built from other sources than this Python code: "
        f"{REBUILD}; `auto` does without"
    )
    chosen = choose("auto")
    assert made_by(chosen)[0] is PortableEngine
    assert not chosen.writes_lines
    assert chosen.notice == (
        "the portable engine is in use; the native one is faster, but it was built from other sources than this Python code: "
        f"{REBUILD}"
    )
