"""Which sampling rule a call's new trace goes by, as part of its decision, so that engines need not know the rules. Pure."""

from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from policies.rules.configuration import SamplingRule
from policies.rules.templates import Template, TemplateTable, template_table
from proxy.contract.head import Form
from proxy.contract.plan import FORCED, REFUSED, Decision, Hold, Labels, Reply
from proxy.contract.recording import RecordingHead, Table
from proxy.deciding.callee import FIRST_SAMPLING_SET, FORCE_SET, SAMPLING_TABLES, ForwardedPaths
from proxy.deciding.policy_judge import FORMS, TemplatePaths

FORCE_HEADER = b"postern-trace"
FORCES = frozenset({b"1"})


class SamplingRules(Struct, frozen=True, kw_only=True):
    """The rules in their order, and who may have traces recorded by a header. Made by `sampling_rules`.

    namespace: our own, which names without one are in. methods: the template of each rule that has one, by its number in `table`.
    headers: (name, values) by their number among the pushed sets.
    """

    namespace: str = ""
    rules: tuple[SamplingRule, ...] = ()
    force_from: frozenset[str] = frozenset()
    table: TemplateTable = field(default_factory=lambda: template_table(()))
    methods: dict[str, int] = {}
    headers: dict[tuple[bytes, frozenset[bytes]], int] = {}

    def tables(self) -> Iterator[tuple[int, Table]]:
        """What must be pushed before `apply`: one for each form of a path."""
        if self.table:
            paths = TemplatePaths(self.table)
            for number, form in enumerate(FORMS, SAMPLING_TABLES):
                yield number, paths if form == "sent" else ForwardedPaths(paths, form)

    def sets(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """The header sets that must be pushed before."""
        yield FORCE_SET, FORCES
        for (_, values), number in self.headers.items():
            yield FIRST_SAMPLING_SET + number, values

    def apply(self, head: RecordingHead, found: Decision) -> Decision:
        """The decision with the sampling that its new trace goes by. Reads only what a rule could turn on."""
        if isinstance(found, Hold):
            return found if found.then.labels.dst else replace(found, then=_refused(found.then))
        if not found.labels.dst:
            return _refused(found) if isinstance(found, Reply) else found
        number = self._number(head, found.labels)
        return replace(found, labels=replace(found.labels, sampling=number)) if number else found

    def _number(self, head: RecordingHead, labels: Labels) -> int:
        if self.force_from & self._names(labels.src, labels.src_namespace) and head.header_is(
            FORCE_HEADER, FORCE_SET
        ):
            return FORCED
        targets = self._names(labels.dst, labels.dst_namespace)
        for number, rule in enumerate(self.rules, 1):
            if (not rule.target or rule.target in targets) and self._fits(rule, head, labels):
                return number
        return 0

    def _names(self, app_id: str, namespace: str) -> frozenset[str]:
        if not namespace:
            return frozenset((app_id,)) if app_id else frozenset()
        whole = f"{app_id}.{namespace}"
        return frozenset((app_id, whole) if namespace == self.namespace else (whole,))

    def _fits(self, rule: SamplingRule, head: RecordingHead, labels: Labels) -> bool:
        if rule.verb and head.method() != rule.verb:
            return False
        if rule.method and not self._meets(self.methods[rule.method], head, labels):
            return False
        return all(
            head.header_is(header[0], FIRST_SAMPLING_SET + self.headers[header]) for header in rule.headers
        )

    def _meets(self, template: int, head: RecordingHead, labels: Labels) -> bool:
        form: Form = "sent"
        if labels.direction == "outbound" and labels.surface == "dapr" and head.protocol() != "grpc":
            form = "method" if labels.strip else "whole"
        found = head.path_class(SAMPLING_TABLES + FORMS.index(form))
        return isinstance(found, tuple) and any(template in met for met in found)


def _refused(reply: Reply) -> Reply:
    return replace(reply, labels=replace(reply.labels, sampling=REFUSED))


def sampling_rules(
    rules: tuple[SamplingRule, ...], force_from: tuple[str, ...], namespace: str
) -> SamplingRules:
    """The rules, ready to be asked. namespace: our own."""
    methods = {rule.method: 0 for rule in rules if rule.method}
    headers = {header: 0 for rule in rules for header in rule.headers}
    return SamplingRules(
        namespace=namespace,
        rules=rules,
        force_from=frozenset(force_from),
        table=template_table([Template(text) for text in methods]),
        methods={text: number for number, text in enumerate(methods)},
        headers={header: number for number, header in enumerate(headers)},
    )
