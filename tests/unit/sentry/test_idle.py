"""When a local sentry is no longer needed."""

from sentry.idle import IdleWatch


class Scene:
    """A clock, a registry and a counter to turn by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_registered = False
        self.count = 0
        self.watch = IdleWatch(
            60, clock=lambda: self.now, is_registered=lambda: self.is_registered, mark=lambda: self.count
        )

    def at(self, now: float) -> bool:
        self.now = now
        return self.watch.is_over()


def test_watch_without_sidecars_is_over_after_its_limit() -> None:
    scene = Scene()
    assert not scene.at(59.9)
    assert scene.at(60)


def test_watch_with_a_sidecar_lasts_and_counts_from_its_end() -> None:
    scene = Scene()
    scene.is_registered = True
    assert not scene.at(1000)
    scene.is_registered = False
    assert not scene.at(1059)
    assert scene.at(1060)


def test_watch_counts_from_the_last_request() -> None:
    scene = Scene()
    scene.count = 1
    assert not scene.at(59)
    assert not scene.at(118)
    assert scene.at(119)
