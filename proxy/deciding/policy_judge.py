"""Asks the AccessPolicies of one policy generation, through pushed tables and sets, so that a decision can be kept. Pure."""

from collections.abc import Hashable, Iterator

from msgspec import Struct

from policies.rules.access_policies import Asked, HasHeader, PolicyRules, PolicyVerdict
from policies.rules.caller import Caller
from policies.rules.matcher import ascii_lower
from policies.rules.templates import Met, TemplateTable
from policies.rules.tokens import VerifiedToken
from proxy.contract.head import Form, RequestHead
from proxy.contract.recording import RecordingHead, Shape, Table
from proxy.deciding.callee import ForwardedPaths

FORMS: tuple[Form, ...] = ("sent", "whole", "method")


class TemplatePaths(Struct, frozen=True):
    """The templates of policies as a pushed table."""

    table: TemplateTable

    @property
    def shape(self) -> Shape:
        """The templates, for an engine that reads them itself."""
        rules = (
            ("", ascii_lower(one.text), frozenset[str]()) if one.folds else (one.text, "", frozenset[str]())
            for one in self.table.templates
        )
        return Shape(kind="templates", rules=tuple(rules))

    def classify(self, path: str) -> Hashable:
        """What the readings of a path meet."""
        return self.table.classes(path)


class PolicyJudge:
    """The rules of policies that are in force together, and the numbers under which their tables and sets are pushed."""

    def __init__(self, rules: PolicyRules, first_table: int, first_set: int) -> None:
        self.rules = rules
        self._first_table = first_table
        self._first_set = first_set

    def tables(self) -> Iterator[tuple[int, Table]]:
        """One for each form of a path."""
        if self.rules.table:
            paths = TemplatePaths(self.rules.table)
            for number, form in enumerate(FORMS, self._first_table):
                yield number, paths if form == "sent" else ForwardedPaths(paths, form)

    def sets(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """The values of the headers that rules ask for."""
        for number, header in enumerate(self.rules.headers, self._first_set):
            yield number, header.values

    def decide(
        self,
        head: RecordingHead,
        caller: Caller | None,
        *,
        is_self: bool,
        form: Form,
        is_grpc: bool,
        token: VerifiedToken | None = None,
    ) -> PolicyVerdict:
        """Reads a header only where a rule could turn on it."""
        found, has_header = self._paths(head, form), self._has_header(head)
        return self.rules.evaluate(Asked(caller, is_self, head.method(), is_grpc, found, has_header, token))

    def meeting(
        self, head: RecordingHead, caller: Caller | None, *, is_grpc: bool, form: Form = "sent"
    ) -> tuple[str, ...]:
        """The names of all rules that speak of a call, whatever their action."""
        asked = Asked(
            *(caller, False, head.method(), is_grpc, self._paths(head, form)),
            self._has_header(head),
        )
        return tuple(rule.name for rule in self.rules.meeting(asked))

    def _paths(self, head: RecordingHead, form: Form) -> tuple[Met, ...] | None:
        """What the readings of a call's path meet."""
        found: Hashable = ((),)
        if self.rules.table:
            found = head.path_class(self._first_table + FORMS.index(form))
        assert found is None or isinstance(found, tuple)
        return found

    def _has_header(self, head: RecordingHead) -> HasHeader:
        def has_header(number: int) -> bool:
            return head.header_is(self.rules.headers[number].name, self._first_set + number)

        return has_header

    def denied_reading(
        self, head: RequestHead, path: str, caller: Caller | None, *, is_self: bool, is_grpc: bool
    ) -> str:
        """Of a denied call: the reading of its path that turned the decision; "" where none did."""

        def has_header(number: int) -> bool:
            wanted = self.rules.headers[number]
            return any(name == wanted.name and value in wanted.values for name, value in head.headers)

        asked = Asked(caller, is_self, head.method, is_grpc, None, has_header)
        return self.rules.denied_reading(path, asked)
