"""No operation that the rules deny is reached in any web framework, by any spelling of its path, through any entrance."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.routers.delivery import Delivered, Rules, deliver
from tests.routers.programs import HEAVY, LIGHT, Operation, reached, serve
from tests.routers.spellings import KNOWN, PATHS, every_edit, some
from tests.support.engines import ENGINES
from tests.support.processes import Processes

PROGRAMS = {**LIGHT, **HEAVY}
# For three callers: `wary` may do all but what is denied, `strict` only what is allowed, `free` everything.
ACCESS_CONTROL = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: rules}
spec:
  accessControl:
    defaultAction: deny
    policies:
      - appId: wary
        trustDomain: public
        namespace: default
        defaultAction: allow
        operations:
          - {name: /item/secret, httpVerb: ["*"], action: deny}
          - {name: /admin, httpVerb: ["*"], action: deny}
          - {name: /box/*, httpVerb: ["*"], action: deny}
          - {name: /shop/7, httpVerb: ["*"], action: deny}
          - {name: /files/private, httpVerb: ["*"], action: deny}
      - appId: strict
        trustDomain: public
        namespace: default
        defaultAction: deny
        operations:
          - {name: /open, httpVerb: ["*"], action: allow}
          - {name: /item/7, httpVerb: ["*"], action: allow}
          - {name: /shop/8, httpVerb: ["*"], action: allow}
          - {name: /files/public, httpVerb: ["*"], action: allow}
      - appId: free
        trustDomain: public
        namespace: default
        defaultAction: allow
"""

ACCESS_POLICY = """\
apiVersion: postern.dev/v1alpha1
kind: AccessPolicy
metadata: {name: rules}
spec:
  default: deny
  rules:
    - name: guarded
      action: deny
      from: {apps: [wary]}
      to:
        paths: [/item/secret, "/item/secret/{**}", /admin, "/admin/{**}", "/box/{**}", "/shop/7/{**}", "/files/private/{**}"]
    - {name: listed, action: allow, from: {apps: [strict]}, to: {paths: [/open, /item/7, "/shop/8/{**}", "/files/public/{**}"]}}
    - {name: rest, action: allow, from: {apps: [wary, free]}}
"""
RULES = {
    "accessControl": Rules(flag="--config", text=ACCESS_CONTROL),
    "AccessPolicy": Rules(flag="--resources-path", text=ACCESS_POLICY),
}


def is_denied_to_wary(operation: Operation) -> bool:
    """What the deny rules of `wary` are about; cases are equal to them."""
    first = operation.value.lower().partition("/")[0]
    return operation.route in {"secret", "admin", "box"} or (operation.route, first) in {
        ("item", "secret"),
        ("nested", "7"),
        ("file", "private"),
    }


def is_denied_to_strict(operation: Operation) -> bool:
    """All but what the rules of `strict` allow."""
    first = operation.value.partition("/")[0]
    return (operation.route, first) not in {("open", ""), ("item", "7"), ("nested", "8"), ("file", "public")}


DENIED_TO: Mapping[str, Callable[[Operation], bool]] = {
    "wary": is_denied_to_wary,
    "strict": is_denied_to_strict,
}


class Running:
    """The programs that were started, each at its first use, and the ports of their frameworks."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._ports: dict[str, dict[str, int]] = {}

    async def ports(self, name: str) -> dict[str, int]:
        """The ports of a program's frameworks; skips where it isn't built."""
        apps = PROGRAMS[name]
        if reason := apps.program.reason_missing():
            pytest.skip(reason)
        if name not in self._ports:
            self._ports[name] = await serve(self._processes, apps)
        return self._ports[name]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Processes() as processes:
        yield Running(processes)


@pytest.fixture(scope="module")
def fewer() -> dict[tuple[str, str], Delivered]:
    """By engine and kind of rules, what was delivered of a small sample."""
    return {}


@pytest.fixture(scope="module")
def many() -> dict[tuple[str, str], Delivered]:
    """By engine and kind of rules, what was delivered of a large sample."""
    return {}


async def judge(ports: Mapping[str, int], delivered: Delivered) -> None:
    """No denied operation is served; and to a caller without rules each framework serves some, by other spellings than the usual."""
    async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
        asking = {name: tasks.create_task(reached(port, delivered.heads)) for name, port in ports.items()}

    def served(caller: str, is_denied: Callable[[Operation], bool]) -> list[tuple[str, str, Operation]]:
        return [
            (framework, target, operation)
            for framework, task in asking.items()
            for target, operation in task.result().items()
            if target in delivered.targets[caller] and is_denied(operation)
        ]

    for caller, is_denied in DENIED_TO.items():
        assert served(caller, is_denied) == [], caller
        disguised = {framework for framework, target, _ in served("free", is_denied) if target not in PATHS}
        assert disguised == ports.keys()


@pytest.mark.parametrize("program", LIGHT)
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("engine", ENGINES)
async def test_denied_operation_is_reached_by_no_spelling(
    running: Running,
    tmp_path: Path,
    fewer: dict[tuple[str, str], Delivered],
    *,
    engine: str,
    kind: str,
    program: str,
) -> None:
    ports = await running.ports(program)
    if (engine, kind) not in fewer:
        spellings = [*PATHS, *KNOWN, *some(150, seed=1)]
        fewer[engine, kind] = await deliver(tmp_path, engine, RULES[kind], spellings, every_way=False)
    await judge(ports, fewer[engine, kind])


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("engine", ENGINES)
async def test_denied_operation_is_reached_by_none_of_many_spellings(
    running: Running,
    tmp_path: Path,
    many: dict[tuple[str, str], Delivered],
    *,
    engine: str,
    kind: str,
    program: str,
) -> None:
    ports = await running.ports(program)
    if (engine, kind) not in many:
        spellings = [*PATHS, *KNOWN, *every_edit(), *some(3_000, seed=2)]
        many[engine, kind] = await deliver(tmp_path, engine, RULES[kind], spellings, every_way=True)
    await judge(ports, many[engine, kind])
