"""Which engine runs, by what is wished for and what this installation has."""

import sys
from functools import partial

import pytest

from proxy.engine import selection
from proxy.engine.portable.engine import PortableEngine
from proxy.engine.selection import choose, loop_factory
from proxy.errors import ConfigError
from proxy.settings.values import EngineChoice
from proxy.settings.version import has_native


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where cargo was missing at installation."""
    monkeypatch.setitem(sys.modules, "proxy.engine.native.adapter", None)
    monkeypatch.setattr(selection, "has_native", lambda: False)


def made_by(chosen: selection.Chosen) -> tuple[object, dict[str, object]]:
    """The engine's class, and what it is told besides."""
    assert isinstance(chosen.make, partial)
    return chosen.make.func, chosen.make.keywords


def test_portable_is_portable() -> None:
    chosen = choose("portable")
    assert (*made_by(chosen), chosen.notice) == (PortableEngine, {"keep_decisions": True}, "")


def test_portable_engine_says_that_threads_do_not_count() -> None:
    notice = choose("portable", threads=2).notice
    assert notice == "--threads 2 has no effect: the portable engine runs on one thread"


@pytest.mark.usefixtures("without_native")
def test_all_that_was_wished_for_in_vain_is_in_one_notice() -> None:
    notice = choose("auto", threads=4).notice
    assert notice.startswith("the portable engine is in use; ")
    assert notice.endswith("; --threads 4 has no effect: the portable engine runs on one thread")


@pytest.mark.usefixtures("without_native")
def test_missing_native_engine_is_an_error_where_it_is_wished_for() -> None:
    with pytest.raises(ConfigError, match=r"--engine native: this installation has none; .*cargo.*auto"):
        choose("native")


@pytest.mark.usefixtures("without_native")
def test_missing_native_engine_is_a_notice_where_it_is_preferred() -> None:
    chosen = choose("auto")
    assert made_by(chosen)[0] is PortableEngine
    assert "the portable engine is in use" in chosen.notice
    assert "cargo" in chosen.notice


def test_extension_that_does_not_load_is_told_apart_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proxy.engine.native.adapter", None)
    monkeypatch.setattr(selection, "has_native", lambda: True)
    with pytest.raises(ConfigError, match="it does not load: "):
        choose("native")
    assert "it does not load" in choose("auto").notice


@pytest.mark.skipif(not has_native(), reason="this installation has no native engine")
def test_native_engine_is_preferred_where_it_is() -> None:
    from proxy.engine.native.adapter import NativeEngine  # noqa: PLC0415 - not everywhere

    wishes: tuple[EngineChoice, ...] = ("native", "auto")
    for wish in wishes:
        chosen = choose(wish)
        assert (made_by(chosen)[0], chosen.notice) == (NativeEngine, "")


@pytest.mark.parametrize("wish", ["auto", "native", "portable"])
def test_each_wish_has_a_loop(wish: EngineChoice) -> None:
    loop_factory(wish)().close()


@pytest.mark.skipif(not has_native(), reason="this installation has no native engine")
def test_native_engine_gets_what_it_is_told() -> None:
    told = {"threads": 3, "keep_decisions": False}
    assert made_by(choose("native", threads=3, keep_decisions=False))[1] == told
