"""One look-up over sources whose words are given by the test."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nameresolution.look_up import look_up
from nameresolution.merge import Own
from nameresolution.resolver import AppName, Endpoint, Found, Push, Resolver, SourceFailure
from nameresolution.static import StaticResolver

CART = AppName("cart", "default")


class Says:
    """A source that says one thing, breaks, or says nothing."""

    lag_s = 0.0

    def __init__(self, source: str, word: Found | Exception | None) -> None:
        self.source = source
        self._word = word
        self.watched: list[AppName] = []

    async def run(self, push: Push) -> None:
        if isinstance(self._word, Exception):
            raise self._word
        if self._word is not None:
            push(self.source, AppName("other", "default"), ())
            push(self.source, CART, self._word)
            push(self.source, CART, ())  # news after the first word is not what was asked for
        await asyncio.Event().wait()

    def watch(self, name: AppName) -> None:
        self.watched.append(name)

    def forget(self, name: AppName) -> None: ...

    async def announce(self, instance: object) -> None: ...

    async def withdraw(self) -> None: ...


def end(port: int, **attributes: str) -> Endpoint:
    return Endpoint(host="10.0.0.1", port=port, instance=f"i{port}", attributes=tuple(attributes.items()))


async def test_each_source_is_told_with_its_time_and_what_does_not_count() -> None:
    registry: Resolver = Says("host registry", (end(1, m="ours"), end(2, m="theirs")))
    mdns: Resolver = Says("mdns", SourceFailure(reason="blocked", fix="free the port"))
    looked = await look_up((registry, mdns), CART, Own(mesh="ours"))
    first, second = looked.asked
    assert (first.source, first.took_s is not None, first.failure) == ("host registry", True, None)
    assert [(each.endpoint.port, each.ignored) for each in first.given] == [
        (1, ""),
        (2, "because it is of another mesh (its trust anchors are not ours)"),
    ]
    assert second.failure == SourceFailure(reason="blocked", fix="free the port")
    assert [each.port for each in looked.found.endpoints] == [1]


async def test_source_that_is_silent_or_breaks_holds_up_nobody() -> None:
    silent: Resolver = Says("mdns", None)
    broken: Resolver = Says("consul", ValueError("no agent"))
    looked = await look_up((silent, broken), CART, Own(), within_s=0.05)
    assert [(each.took_s is None, str(each.failure)) for each in looked.asked] == [
        (True, "no answer within 0.1 s"),
        (False, "failed (ValueError: no agent)"),
    ]
    assert looked.found.endpoints == ()


async def test_file_decides_and_the_others_say_so(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("cart: 10.9.9.9:7")
    looked = await look_up((StaticResolver(path, "default"), Says("mdns", (end(1),))), CART, Own())
    assert [each.address for each in looked.found.endpoints] == ["10.9.9.9:7"]
    assert looked.asked[1].given[0].ignored == "because the file of fixed endpoints has this name"
