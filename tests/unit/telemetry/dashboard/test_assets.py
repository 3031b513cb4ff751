"""The page's files: complete, from the package alone, and without a way for text to become markup."""

import re

import pytest

from telemetry.dashboard.assets import load

ASSETS = load()
SCRIPTS = {path: asset.body.decode() for path, asset in ASSETS.items() if path.endswith(".js")}
STYLES = {path: asset.body.decode() for path, asset in ASSETS.items() if path.endswith(".css")}
PAGE = ASSETS["/"].body.decode()
# What turns text into markup, code or styles. Positions are set property by property.
SINKS = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|cssText|setAttributeNS|DOMParser"


def test_page_and_its_kinds_are_there() -> None:
    assert ASSETS["/"].kind.startswith(b"text/html")
    assert ASSETS["/main.js"].kind.startswith(b"text/javascript")
    assert ASSETS["/base.css"].kind.startswith(b"text/css")


def test_whatever_the_page_asks_for_is_in_the_package() -> None:
    asked = set(re.findall(r'(?:src|href)="(/[^"]*)"', PAGE))
    for path, script in SCRIPTS.items():
        asked |= {f"/{name}" for name in re.findall(r'from "\./([^"]+)"', script)}
        assert not re.findall(r'(?:from|import)\s+\(?"(?!\./)', script), path
    assert asked <= ASSETS.keys()
    assert set(SCRIPTS) <= asked
    assert set(STYLES) <= asked


def test_page_has_no_inline_script_style_or_handler() -> None:
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", PAGE)
    assert not [text for text in re.findall(r"<script[^>]*>(.*?)</script>", PAGE, re.DOTALL) if text.strip()]


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_script_never_makes_markup_of_text(path: str) -> None:
    assert not re.search(SINKS, SCRIPTS[path])


@pytest.mark.parametrize("path", sorted({**SCRIPTS, **STYLES}))
def test_nothing_comes_from_outside(path: str) -> None:
    text = {**SCRIPTS, **STYLES}[path].replace('"http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_script_is_a_small_module(path: str) -> None:
    assert len(SCRIPTS[path].splitlines()) <= 400
