"""The external authorizers of a sidecar: asks those that a Plan names, in order and in time, and says what comes of it.

Fails closed: whatever goes wrong, the call does not go on, unless the authorizer is set to let calls by where it gives no answer.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Literal, Protocol

from msgspec.structs import replace

from policies.rules.authorizers import ExternalAuthorizer
from proxy.contract.authorizing import Authorized, Granted, Unanswered
from proxy.contract.head import RequestHead
from proxy.contract.plan import DETAIL, Cause, Plan, Reply
from proxy.control.authorizing.kept_answers import KeptAnswers
from proxy.control.authorizing.over_http import DaprOpaClient, HttpClient, OpaClient
from proxy.control.authorizing.question import Party, Question, question
from proxy.control.authorizing.verdicts import (
    Allowed,
    AuthorizerError,
    Denied,
    Ignored,
    Verdict,
    Where,
    together,
    withheld,
)
from telemetry.logs import get_logger

MAX_ASKING: Final = 1_000  # questions to one authorizer under way: more are not asked, as it does not keep up
TELL_S: Final = 10.0  # between two lines of log about one authorizer that gives no answer
_MAX_IGNORED: Final = 64  # fields that are told of once
# What our own words stand for in gRPC; all else is PERMISSION_DENIED. Source: google.rpc.Code.
_GRPC_CODES: Final = {401: 16, 429: 8}
_PERMISSION_DENIED: Final = 7
_TEXT_BYTES: Final = 1_024  # of a refusal in `grpc-message`, escaped: clients take 8 KiB of metadata (grpc-java), which it is in twice

Result = Literal["allowed", "denied", "error", "timeout", "busy", "cached"]


class Client(Protocol):
    """Speaks to one authorizer."""

    async def ask(self, asked: Question) -> Verdict:
        """What it says. Raises: AuthorizerError."""

    async def close(self) -> None:
        """Ends what is open."""


class Counting(Protocol):
    """Hears of each question."""

    def __call__(self, authorizer: str, result: Result, took_s: float) -> None: ...


def count_nothing(authorizer: str, result: Result, took_s: float) -> None:
    """For whoever does not count."""


class _One:
    """One authorizer. Mutable state: its client, the answers kept, how many are asked for, the last error, what was told of."""

    def __init__(self, name: str, spec: ExternalAuthorizer) -> None:
        self.name = name
        self.spec = spec
        self.client: Client | None = None
        self.kept = KeptAnswers(spec.cache_s, time.monotonic)
        self.asking = 0
        self.error = ""
        self._log = get_logger("postern.authorizer")
        self._ignored: set[tuple[bytes, Where]] = set()
        self._told_at: float | None = None
        self._untold = 0

    async def open(self) -> None:
        """Make its client."""
        await self.opened()

    async def opened(self) -> Client:
        """Its client; grpcio is loaded with the first one that needs it."""
        if self.client is None:
            made = _KINDS.get("rego" if self.spec.rego else self.spec.kind)
            if made is None:
                over_grpc: Any = await asyncio.to_thread(import_module, "proxy.control.authorizing.over_grpc")
                made = over_grpc.GrpcClient
            self.client = self.client or made(self.spec, self._ignore)
        return self.client

    async def ask(self, about: Question) -> Verdict:
        """What it says within its time. Raises: AuthorizerError."""
        if self.asking >= MAX_ASKING:
            raise AuthorizerError(f"{MAX_ASKING} questions to it are under way", "busy")
        self.asking += 1
        try:
            client = await self.opened()
            async with asyncio.timeout(self.spec.timeout_s):
                return await client.ask(about)
        except TimeoutError as error:
            raise AuthorizerError(f"no answer within {self.spec.timeout_s:g} s", "timeout") from error
        finally:
            self.asking -= 1

    def failed(self, reason: str) -> None:
        """Tell people, now and then."""
        self.error = reason
        self._untold += 1
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= TELL_S:
            goes_on = "calls go on" if self.spec.is_fail_open else "calls are not let through"
            told = {"authorizer": self.name, "target": self.spec.target, "reason": reason}
            self._log.warning("no answer of an authorizer", **told, calls=self._untold, so=goes_on)
            self._told_at, self._untold = now, 0

    def answered(self) -> None:
        """It works."""
        if self.error:
            self.error, self._told_at, self._untold = "", None, 0
            self._log.info("an authorizer answers again", authorizer=self.name)

    def _ignore(self, field: bytes, where: Where) -> None:
        if (field, where) not in self._ignored and len(self._ignored) < _MAX_IGNORED:
            self._ignored.add((field, where))
            shown = field[:100].decode("latin-1")
            self._log.warning(
                "an authorizer sets what it may not: ignored",
                authorizer=self.name,
                field=shown,
                where=where,
            )


_KINDS: Final[Mapping[str, Callable[[ExternalAuthorizer, Ignored], Client]]] = {
    "http": HttpClient,
    "opa": OpaClient,
    "rego": DaprOpaClient,
}


class Authorizers:
    """Mutable state: the authorizers by the names that Plans have for them, and the TaskGroup while `run` is running."""

    def __init__(self, own: Party) -> None:
        self._own = own
        self._count: Counting = count_nothing
        self._known: dict[str, _One] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._log = get_logger("postern.authorizer")

    def configure(self, wanted: Mapping[str, ExternalAuthorizer]) -> None:
        """Ask these, and nobody else. One with equal settings goes on with its connection and its answers."""
        before, self._known = self._known, {}
        for name, spec in wanted.items():
            known = before.get(name)
            self._known[name] = known if known is not None and known.spec == spec else _One(name, spec)
        self._warm_up()
        for name, one in before.items():
            if self._known.get(name) is not one and one.client is not None and self._tasks is not None:
                self._tasks.create_task(self._close(one))

    async def run(self, count: Counting = count_nothing) -> None:
        """Ask until cancelled, and have each question counted."""
        self._count = count
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._warm_up()
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    def _warm_up(self) -> None:
        """Load what clients need before the first call waits for it."""
        for one in self._known.values():
            if self._tasks is not None and one.client is None:
                self._tasks.create_task(one.open())

    def status(self) -> list[dict[str, Any]]:
        """Each of them, for people. error: of the last question, "" where it was answered."""
        return [
            {
                "name": name,
                "kind": one.spec.kind,
                "target": one.spec.target,
                "asking": one.asking,
                "cached": len(one.kept),
                "error": one.error,
            }
            for name, one in self._known.items()
        ]

    def authorize(self, plan: Plan, head: RequestHead, then: Callable[[Authorized], None]) -> None:
        """See `proxy.contract.authorizing.Authorize`."""
        asked: list[tuple[_One, Question]] = []
        for name in plan.authorizers:
            one = self._known.get(name)
            if one is None:
                then(Unanswered(f"the authorizer {_shown(name)} is not known any more"))
                return
            asked.append((one, question(plan, head, one.spec, name, self._own)))
        recalled: list[Verdict] = []
        for one, about in asked:
            found = one.kept.find(about)
            if found is None:
                break
            self._count(one.name, "cached", 0.0)
            recalled.append(found)
            if isinstance(found, Denied):
                break
        if len(recalled) == len(asked) or (recalled and isinstance(recalled[-1], Denied)):
            then(_told(plan, asked, recalled))
        elif self._tasks is None:
            then(Unanswered("this proxy is not serving"))
        else:
            self._tasks.create_task(self._ask(plan, asked, recalled, then))

    async def _ask(
        self,
        plan: Plan,
        asked: list[tuple[_One, Question]],
        verdicts: list[Verdict],
        then: Callable[[Authorized], None],
    ) -> None:
        found: Authorized = Unanswered("this proxy is shutting down")
        try:
            for one, about in asked[len(verdicts) :]:
                verdicts.append(await self._verdict(one, about))
                if isinstance(verdicts[-1], Denied):
                    break
            found = _told(plan, asked, verdicts)
        except AuthorizerError as error:
            name = _shown(asked[len(verdicts)][0].name)
            what = "did not answer in time" if error.result == "timeout" else "gave no answer that counts"
            found = Unanswered(f"the authorizer {name} {what}")
        except Exception as error:  # noqa: BLE001 - the boundary: one call fails, and nobody waits for ever
            self._log.error("no question about a call", reason=f"{type(error).__name__}: {error}")
            found = Unanswered("this proxy failed to ask about it, see its log")
        finally:
            then(found)

    async def _verdict(self, one: _One, about: Question) -> Verdict:
        """What it says. Raises: AuthorizerError where it says nothing and must."""
        since, result = time.perf_counter(), "error"
        try:
            verdict = await one.ask(about)
        except AuthorizerError as error:
            result = error.result
            one.failed(str(error))
            if not one.spec.is_fail_open:
                raise
            return Allowed(withheld(one.spec.to_app))
        else:
            result = "denied" if isinstance(verdict, Denied) else "allowed"
            one.answered()
            one.kept.keep(about, verdict)
            return verdict
        finally:
            self._count(one.name, result, time.perf_counter() - since)  # type: ignore[arg-type]

    async def _close(self, one: _One) -> None:
        if one.client is not None:
            await one.client.close()


def _told(plan: Plan, asked: list[tuple[_One, Question]], verdicts: list[Verdict]) -> Authorized:
    """What comes of the answers: all let the call go on, or the last one refuses it."""
    last = verdicts[-1]
    if isinstance(last, Denied):
        return _refused(plan, _shown(asked[len(verdicts) - 1][0].name), last)
    made = together(one for one in verdicts if isinstance(one, Allowed))
    return Granted(request=made.request, reply=made.reply)


def _refused(plan: Plan, name: str, denied: Denied) -> Reply:
    """The answer to a refused call, in both forms; where the authorizer says nothing to people, it says that it was refused by it."""
    base = plan.local_replies[Cause.DENIED]
    labels = replace(base.labels, decision=f"{base.labels.decision} denied_by={name}".strip())
    text = f"the authorizer {name}"
    code = _GRPC_CODES.get(denied.status, _PERMISSION_DENIED)
    has_body = bool(denied.body) or denied.status < 400
    theirs = {field for field, _ in denied.headers} | ({b"content-type"} if has_body else set())
    headers = (*(field for field in base.headers if field[0] not in theirs), *denied.headers)
    said = _begin(denied.body.decode("utf-8", "replace").strip())
    return replace(
        base,
        status=denied.status,
        headers=headers,
        body=denied.body if has_body else base.body.replace(DETAIL.encode(), text.encode()),
        grpc_code=code,
        grpc_message=said or base.grpc_message.replace(DETAIL, text),
        labels=labels,
    )


def _begin(text: str) -> str:
    """What of a text takes no more than `_TEXT_BYTES` in `grpc-message`, where all but printable ASCII is escaped (gRPC over HTTP/2)."""
    left = _TEXT_BYTES
    for at, char in enumerate(text):
        left -= 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode())
        if left < 0:
            return text[:at]
    return text


def _shown(name: str) -> str:
    """A name as its policy or component has it."""
    return name.rpartition(":")[2]
