"""What HTTP requests pass before they go on (`spec.httpPipeline`, `spec.appHttpPipeline`). Pure.

Each handler is a gate, an edit (of the head or of bodies), or an answer. No chain of its own runs in an engine: handlers are asked in
their order, and what they say goes into one decision.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.path_readings import readings
from policies.rules.patterns import Pattern
from policies.rules.pipelines import (
    Bearer,
    ClientCredentials,
    Middleware,
    OAuth2,
    Opa,
    RateLimit,
    RouterAlias,
    RouterChecker,
    Uppercase,
)
from proxy import errors
from proxy.contract.gates import GateSpec, RateGate
from proxy.contract.head import Form, Headers
from proxy.contract.plan import Cause, Decision, Edit, Edits, Hold, Labels, Op, Plan, Reply
from proxy.contract.recording import RecordingHead, Table
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.bearer import TokenError, UnknownKeyError, bearer_token, verified
from proxy.deciding.callee import ForwardedPaths
from proxy.deciding.login import NO_STORE, Callback, read_cookie, set_cookie
from proxy.deciding.path_aliases import PathAliases
from proxy.deciding.plain_text import in_plain_text
from proxy.deciding.remote import REMOTE_HOLD_S, NothingFetched, Remote
from proxy.wire.target import as_forwarded

LOGIN_HOLD_S: Final = 15.0  # for a code to become a token, asked for in one way and then the other
FilteredT = TypeVar("FilteredT", bound=ClientCredentials | OAuth2)
_FORMS: Final[tuple[Form, ...]] = ("sent", "whole", "method")


class Way:
    """A request on its way through. Mutable state: where it goes by now, and what it is given."""

    __slots__ = (
        "authorizers",
        "edits",
        "form",
        "gates",
        "head",
        "is_login",
        "labels",
        "scopes",
        "upper",
        "wait_s",
    )

    def __init__(self, head: RecordingHead, form: Form, labels: Labels) -> None:
        self.head = head
        self.form = form
        self.labels = labels
        self.gates: list[str] = []
        self.authorizers: list[str] = []
        self.edits: list[Edit] = []
        self.scopes: list[str] = []
        self.upper = (False, False)
        self.wait_s = 0
        self.is_login = False

    def refuse(self, cause: Cause, text: str, *, status: int | None = None, headers: Headers = ()) -> Reply:
        """An answer in plain text, as Dapr's middleware gives it."""
        return in_plain_text(errors.reply(cause, self.labels, text, status=status, extra=headers), text)

    def redirect(self, headers: Headers) -> Reply:
        """Send the caller elsewhere."""
        return Reply(
            cause=Cause.STATUS,  # none: no call came of it
            status=302,
            headers=headers,
            body=b"",
            grpc_code=16,
            grpc_message="a browser must log in first",
            labels=self.labels,
        )

    def gated(self, decided: Decision) -> Decision:
        """The same behind the gates so far."""
        if not isinstance(decided, Reply) or not self.gates:
            return decided
        who = self.labels.dst or "this proxy"
        replies = CauseReplies(self.labels, "own", who, "", end="app").limiting(self.wait_s)
        return replace(decided, gates=tuple(self.gates), local_replies=replies)

    def path(self) -> str:
        """The path as whoever comes next finds it; the decision is for this call alone."""
        return as_forwarded(self.head.whole().path, self.form)


class Step(ABC):
    """A handler at work."""

    reads_path = False

    def classify(self, path: str) -> tuple[Hashable, str]:
        """What of a path it turns on, and the path behind it."""
        return None, path

    @abstractmethod
    def take(self, way: Way, found: Hashable) -> Decision | None:
        """Let a request pass, and give it what is to be given; or the decision about it. found: by `classify`."""


class _RateLimit(Step):
    def __init__(self, middleware: RateLimit, gate: str, _: Remote) -> None:
        self._gate = gate
        self._wait_s = math.ceil(1 / middleware.per_s)  # at most, for whoever finds no token

    def take(self, way: Way, found: Hashable) -> Decision | None:
        way.gates.append(self._gate)
        way.wait_s = max(way.wait_s, self._wait_s)
        return None


class _Opa(Step):
    def __init__(self, _: Opa, name: str, __: Remote) -> None:
        self._name = name

    def take(self, way: Way, found: Hashable) -> Decision | None:
        way.authorizers.append(self._name)
        return None


class _Bearer(Step):
    def __init__(self, middleware: Bearer, _: str, remote: Remote) -> None:
        self._middleware = middleware
        self._keys = middleware.keys
        self._remote = remote

    def take(self, way: Way, found: Hashable) -> Decision | None:
        one = self._middleware
        token = bearer_token(way.head.whole().headers)
        if token is None:
            return self._refuse(way, "this needs a bearer token in the header authorization")
        state = self._remote.keys(self._keys)
        if state.keys is None:
            why = state.error or "they are on their way"
            text = f"{one.name} can't check tokens without the keys of {one.issuer}: {why}"
            then = way.refuse(Cause.NOT_READY, text, status=500)
            return then if state.error else Hold(key=self._keys.key, for_s=REMOTE_HOLD_S, then=then)
        try:
            verified(token, state.keys, issuer=one.issuer, audiences=(one.audience,))
        except UnknownKeyError as error:
            then = self._refuse(way, f"the token does not count: {error}", b', error="invalid_token"')
            return Hold(key=self._keys.key, for_s=REMOTE_HOLD_S, then=then) if state.may_renew else then
        except TokenError as error:
            return self._refuse(way, f"the token does not count: {error}", b', error="invalid_token"')
        return None

    def _refuse(self, way: Way, text: str, why: bytes = b"") -> Reply:
        asked = (b"www-authenticate", b'Bearer realm="%b"%b' % (self._middleware.name.encode(), why))
        return way.refuse(Cause.UNAUTHENTICATED, text, headers=(asked,))


class _Filtered(Step, Generic[FilteredT]):
    """For some paths alone: those that an app may read as one that the filter finds."""

    def __init__(self, middleware: FilteredT, _: str, remote: Remote) -> None:
        self._filter = Pattern(middleware.path_filter) if middleware.path_filter else None
        self.reads_path = self._filter is not None
        self._middleware = middleware
        self._remote = remote

    def classify(self, path: str) -> tuple[Hashable, str]:
        if self._filter is None:
            return True, path
        found = readings(path)
        return found is None or any(map(self._filter.finds, (path, *found))), path


class _ClientCredentials(_Filtered[ClientCredentials]):
    def take(self, way: Way, found: Hashable) -> Decision | None:
        if found is False:
            return None
        one, state = self._middleware, self._remote.token(self._middleware)
        way.scopes.append(one.remote_key)
        if state.value is None:
            text = f"{one.name} has no token from {one.token_url}: {state.error or 'it is on its way'}"
            then = replace(way.refuse(Cause.NOT_READY, text, status=503), scopes=(one.remote_key,))
            return then if state.error else Hold(key=one.remote_key, for_s=REMOTE_HOLD_S, then=then)
        way.edits.append(Edit(op=Op.SET, name=one.header.encode(), data=state.value))
        return None


class _OAuth2(_Filtered[OAuth2]):
    def take(self, way: Way, found: Hashable) -> Decision | None:
        if found is False:
            return None
        one, head = self._middleware, way.head.whole()
        session = read_cookie(one, "session", head.headers)
        value = None if session is None else self._remote.session(one, session)
        if value is not None:
            way.edits.append(Edit(op=Op.SET, name=one.header.encode(), data=value))
            way.is_login = True
            return None
        callback = self._remote.logins.callback(one, head)
        if callback is None:
            return way.redirect(self._remote.logins.begin(one, head))
        return self._finish(way, callback)

    def _finish(self, way: Way, callback: Callback) -> Decision:
        one, over = self._middleware, set_cookie(self._middleware, "login", "", 0)
        if callback.error:
            text = f"{one.name}: the login failed at its provider: {callback.error[:100]!r}"
            return way.refuse(Cause.UNAUTHENTICATED, text, headers=(over,))
        state = self._remote.login(one, callback.code)
        if not state.session:
            why = state.error or "it is on its way"
            then = way.refuse(
                Cause.NOT_READY, f"{one.name} has no token from {one.token_url}: {why}", status=500
            )
            key = f"{one.remote_key}\n{callback.code}"
            return then if state.error else Hold(key=key, for_s=LOGIN_HOLD_S, then=then)
        host = f"https://{way.head.whole().authority}" if one.force_https else ""
        cookie = set_cookie(one, "session", state.session, state.life_s)
        return way.redirect(((b"location", f"{host}{callback.path}".encode()), cookie, over, *NO_STORE))


class _RouterAlias(Step):
    reads_path = True

    def __init__(self, middleware: RouterAlias, _: str, __: Remote) -> None:
        self._aliases = PathAliases(middleware.routes)

    def classify(self, path: str) -> tuple[Hashable, str]:
        return self._aliases.classify(path)

    def take(self, way: Way, found: Hashable) -> Decision | None:
        if isinstance(found, int):
            path = way.path()
            way.head = way.head.moved(self._aliases.classify(path)[1], self._aliases.fill(found, path))
        elif isinstance(found, str):
            way.head = way.head.moved(found)
        way.form = way.form if found is None else "sent"
        return None


class _RouterChecker(Step):
    def __init__(self, middleware: RouterChecker, _: str, __: Remote) -> None:
        self._name = middleware.name
        self._rule = Pattern(middleware.rule)

    def take(self, way: Way, found: Hashable) -> Decision | None:
        query = way.head.whole().query.decode("latin-1")
        if self._rule.finds(f"{way.path()}?{query}" if query else way.path()):
            return None
        return way.refuse(Cause.BAD_REQUEST, f"invalid router: the rule of {self._name} does not allow it")


class _Uppercase(Step):
    def __init__(self, middleware: Uppercase, _: str, __: Remote) -> None:
        self._middleware = middleware

    def take(self, way: Way, found: Hashable) -> Decision | None:
        request, response = way.upper
        way.upper = (request or self._middleware.request, response or self._middleware.response)
        return None


_STEPS: Mapping[type[Middleware], Callable[[Any, str, Remote], Step]] = {
    Bearer: _Bearer,
    ClientCredentials: _ClientCredentials,
    OAuth2: _OAuth2,
    Opa: _Opa,
    RateLimit: _RateLimit,
    RouterAlias: _RouterAlias,
    RouterChecker: _RouterChecker,
    Uppercase: _Uppercase,
}


class Passed(Struct, frozen=True):
    """A request that goes on: as what head, and what its Plan is given. is_login: a browser's, which has logged in.

    upper: whether its body goes on in upper case, and that of its answer.
    """

    head: RecordingHead
    gates: tuple[str, ...] = ()
    edits: Edits = ()
    wait_s: int = 0
    scopes: tuple[str, ...] = ()
    upper: tuple[bool, bool] = (False, False)
    authorizers: tuple[str, ...] = ()
    is_login: bool = False

    def onto(self, found: Decision) -> Decision:
        """The same decision, given that."""
        if not isinstance(found, Plan):
            return found
        replies = found.local_replies
        return replace(
            found,
            routes=tuple(replace(route, edits=(*route.edits, *self.edits)) for route in found.routes),
            gates=(*self.gates, *found.gates),
            authorizers=(*self.authorizers, *found.authorizers),
            local_replies=replies.limiting(self.wait_s) if isinstance(replies, CauseReplies) else replies,
            scopes=(*found.scopes, *self.scopes),
            upper_request=found.upper_request or self.upper[0],
            upper_response=found.upper_response or self.upper[1],
        )


class Pipeline:
    """One of the two. `side`: http or app, by which its gates are named; `first_table`: the first of three numbers for its tables."""

    def __init__(
        self,
        side: str,
        first_table: int,
        handlers: tuple[Middleware, ...] = (),
        remote: Remote = NothingFetched(),  # noqa: B008 - it has no state
    ) -> None:
        self._first_table = first_table
        names = [f"{side}:{number}:{handler.name}" for number, handler in enumerate(handlers)]
        self._steps = tuple(
            _STEPS[type(handler)](handler, name, remote)
            for handler, name in zip(handlers, names, strict=True)
        )
        self._reads_paths = any(step.reads_path for step in self._steps)
        self.secret_headers = frozenset(
            one.header.encode() for one in handlers if isinstance(one, ClientCredentials | OAuth2)
        )
        self.has_logins = any(isinstance(one, OAuth2) for one in handlers)
        self.gates: Mapping[str, GateSpec] = {
            name: RateGate(per_s=handler.per_s, burst=handler.burst)
            for handler, name in zip(handlers, names, strict=True)
            if isinstance(handler, RateLimit)
        }
        self.authorizers: Mapping[str, ExternalAuthorizer] = {
            name: handler.authorizer
            for handler, name in zip(handlers, names, strict=True)
            if isinstance(handler, Opa)
        }

    def tables(self) -> Mapping[int, Table]:
        """What must be pushed before it decides."""
        if not self._reads_paths:
            return {}
        numbers = zip(range(self._first_table, self._first_table + len(_FORMS)), _FORMS, strict=True)
        return {number: ForwardedPaths(self, form) for number, form in numbers}

    def classify(self, path: str) -> tuple[Hashable, ...]:
        """What each handler turns on, of a path as the app finds it."""
        found: list[Hashable] = []
        for step in self._steps:
            kind, path = step.classify(path)
            found.append(kind)
        return tuple(found)

    def take(self, head: RecordingHead, form: Form, labels: Labels) -> Passed | Decision:
        """What becomes of a request. form: which of its paths counts."""
        if not self._steps:
            return Passed(head)
        kinds: Hashable = (None,) * len(self._steps)
        if self._reads_paths:
            kinds = head.path_class(self._first_table + _FORMS.index(form))
        assert isinstance(kinds, tuple)
        way = Way(head, form, labels)
        for step, kind in zip(self._steps, kinds, strict=True):
            decided = step.take(way, kind)
            if decided is not None:
                return way.gated(decided)
        given = (tuple(way.gates), tuple(way.edits), way.wait_s, tuple(way.scopes), way.upper)
        return Passed(way.head, *given, tuple(way.authorizers), is_login=way.is_login)

    def carry(
        self,
        head: RecordingHead,
        form: Form,
        labels: Labels,
        rewrite: Edits,
        make: Callable[[Edits], Decision],
    ) -> Decision:
        """What becomes of a request that goes on by what `make` makes. rewrite: edits of the target, which make it of this form."""
        passed = self.take(head, form, labels)
        if not isinstance(passed, Passed):
            return passed
        if passed.head.moved_to != head.moved_to:
            rewrite = (*rewrite, *path_edit(passed.head, "sent"))
        return passed.onto(make(rewrite))


def path_edit(head: RecordingHead, form: Form) -> Edits:
    """What sends a request to the path that it was moved to; nothing where it was not."""
    if head.moved_to is None:
        return () if form == "sent" else (Edit(op=Op.DAPR_PATH, data=form.encode()),)
    path, query = head.moved_to
    target = as_forwarded(path, form) + (f"?{query}" if query else "")
    return (Edit(op=Op.PATH, data=target.encode()),)
