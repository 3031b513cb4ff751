"""Judges calls by access policies in files, as the callee's sidecar would. Nothing runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from policies.errors import DocumentError, advised
from policies.reading.assemble import Resources, compile_documents, read
from policies.reading.compile_access import AccessContext
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.reading.schema import Configuration
from policies.rules.access import AccessDecision, AccessRules, Operation, Profile, Protocol
from policies.rules.caller import Caller
from policies.rules.faults import FaultRule
from policies.rules.limits import RateRule
from policies.rules.tokens import VerifiedToken
from proxy.cli.analyze import shown
from proxy.cli.errors import UsageError
from proxy.contract.head import Header, RequestHead
from proxy.contract.plan import Labels
from proxy.contract.recording import RecordingHead, Tables
from proxy.control.explaining import inbound_head
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.callee import parse_callee
from proxy.deciding.limits import InboundLimits, inbound_limits
from proxy.deciding.peer import caller_of
from proxy.deciding.tokens import Users
from sentry.errors import IdentityError

ANONYMOUS = "anonymous"


class App(Struct, frozen=True, kw_only=True):
    """Whose policies they are."""

    app_id: str
    namespace: str = "default"
    trust_domain: str = "public"
    protocol: str = "http"
    profile: Profile = "production"


class Ask(Struct, frozen=True, kw_only=True):
    """A call: `caller` is an app-id, `app.namespace`, a SPIFFE ID, or `anonymous`. claims: JSON, of the verified token that it brings."""

    caller: str
    method: str
    path: str
    is_grpc: bool = False
    headers: tuple[Header, ...] = ()
    claims: str = ""


class Judged(Struct, frozen=True, kw_only=True):
    """The decision on a call. where: file:line of the rule that decided, empty where none did. reading: of the path, that was denied.

    by_access_control: what `spec.accessControl` says of it, None where no file has one. rates: that it must pass if it is allowed.
    faults: that are injected into it then, in a sidecar that injects faults.
    """

    ask: Ask
    decision: AccessDecision
    where: str = ""
    reading: str = ""
    peer: str = ""
    by_access_control: AccessDecision | None = None
    rates: tuple[RateRule, ...] = ()
    faults: tuple[FaultRule, ...] = ()

    @property
    def verdict(self) -> Literal["allow", "deny"]:
        """In one word."""
        return "allow" if self.decision.allowed else "deny"


class PolicyFiles(Struct, frozen=True, kw_only=True):
    """The policies of one app, compiled, and the documents that they are from."""

    app: App
    access: AccessRules
    authorizer: Authorizer
    limits: InboundLimits
    configurations: Sequence[tuple[Document, Configuration]]
    resources: Resources
    tables: Tables = field(default_factory=Tables)

    def judge(self, ask: Ask) -> Judged:
        """What becomes of a call. Raises: UsageError for one that there can't be."""
        peer = self._peer(ask.caller)
        try:
            caller = caller_of(peer)
        except IdentityError as error:
            raise UsageError(f"invalid caller {ask.caller!r}: {error}") from error
        try:
            head = inbound_head(ask.method, ask.path, ask.headers, is_grpc=ask.is_grpc, peer=peer or "")
        except ValueError as error:
            raise UsageError(str(error)) from error
        protocol: Protocol = "grpc" if self.app.protocol in ("grpc", "grpcs") else "http"
        asking = RecordingHead(head, self.tables)
        token = _token(ask.claims)
        users = Users(enforced=token, audited=token)
        decision = self.authorizer.decide(asking, caller, protocol, is_grpc=ask.is_grpc, users=users)
        rates: tuple[RateRule, ...] = ()
        faults: tuple[FaultRule, ...] = ()
        if decision.allowed:
            rates = self.limits.rates_met(asking, caller, is_grpc=ask.is_grpc)
            faults = self.limits.faults_met(asking, caller)
        return Judged(
            ask=ask,
            decision=decision,
            rates=rates,
            faults=faults,
            where=self._where(decision, caller),
            reading="" if decision.allowed else self._denied_as(head, peer, protocol),
            peer=peer or "",
            by_access_control=None
            if self.access.profile is not None
            else self.access.evaluate(caller, Operation(protocol=protocol, verb=ask.method, path=head.path)),
        )

    def rules(self) -> list[dict[str, str]]:
        """The rules of policies in force and of audited ones, as they are asked."""
        rows: list[dict[str, str]] = []
        for mode, rules in (("", self.access.policies.enforced), (" (audit)", self.access.policies.audited)):
            for rule in rules.rules if rules is not None else ():
                if rule.asks:
                    continue  # one half of a rule whose other half allows
                document, number, written = next(
                    (document, number, written)
                    for document, policy in self.resources.access_policies
                    if policy.metadata.name == rule.policy
                    for number, written in enumerate(policy.spec.rules)
                    if written.name == rule.name
                )
                to = written.to.grpc or written.to
                rows.append(
                    {
                        "policy": f"{rule.policy}{mode}",
                        "rule": rule.name,
                        "action": written.action,
                        "from": _shown(written.from_),
                        "to": _shown(to),
                        "where": f"{shown(document.path)}:{document.line_of(('spec', 'rules', number))}",
                    }
                )
        return rows

    def _peer(self, caller: str) -> str | None:
        if caller == ANONYMOUS:
            return None
        if caller.startswith("spiffe://"):
            return caller
        named = parse_callee(caller, self.app.namespace)
        if named is None:
            raise UsageError(
                f"{caller!r} is not a caller",
                hint=f"expected an app-id, app.namespace, a SPIFFE ID, or {ANONYMOUS}",
            )
        return f"spiffe://{self.app.trust_domain}/ns/{named.namespace}/{named.app_id}"

    def _denied_as(self, head: RequestHead, peer: str | None, protocol: Protocol) -> str:
        app = self.app
        own = Caller(trust_domain=app.trust_domain, namespace=app.namespace, app_id=app.app_id)
        labels = Labels(direction="inbound", peer_id=peer or "")
        return self.authorizer.denied_as(head, labels, protocol, own)

    def _where(self, decision: AccessDecision, caller: Caller | None) -> str:
        if not decision.rule:
            return ""
        for document, policy in self.resources.access_policies:
            for number, rule in enumerate(policy.spec.rules):
                if (policy.metadata.name, rule.name) == (decision.policy, decision.rule):
                    return f"{shown(document.path)}:{document.line_of(('spec', 'rules', number))}"
        for document, configuration in self.configurations:
            for number, entry in enumerate(configuration.spec.access_control.policies):
                if caller is None or (entry.app_id, entry.namespace) != (caller.app_id, caller.namespace):
                    continue
                for place, operation in enumerate(entry.operations):
                    if decision.rule in (operation.name, "/" + operation.name):
                        line = document.line_of(
                            ("spec", "accessControl", "policies", number, "operations", place)
                        )
                        return f"{shown(document.path)}:{line}"
        return ""


def read_policies(
    configurations: Sequence[Path], resources: Sequence[Path], app: App, env: Mapping[str, str]
) -> PolicyFiles:
    """Files as the app's sidecar reads them. Blocks on the disk. Raises: DocumentError with every fault."""
    context = AccessContext(
        own_app_id=app.app_id,
        own_namespace=app.namespace,
        own_trust_domain=app.trust_domain,
        app_protocol=app.protocol,
        profile=app.profile,
        mtls=True,
    )
    findings = Findings()
    read_configurations, read_resources = read(configurations, resources, env, findings)
    made_of_them = compile_documents(read_configurations, read_resources, context, env, findings)
    access = made_of_them.access
    if findings.faults:
        raise DocumentError(advised(findings.faults))
    made = PolicyFiles(
        app=app,
        access=access,
        authorizer=Authorizer(access),
        limits=inbound_limits(made_of_them.traffic),
        configurations=read_configurations,
        resources=read_resources,
    )
    for number, table in (*made.authorizer.tables(), *made.limits.tables()):
        made.tables.put_paths(number, table)
    for number, members in (*made.authorizer.sets(), *made.limits.sets()):
        made.tables.put_set(number, members)
    return made


def _token(claims: str) -> VerifiedToken | None:
    """The token with these claims. Raises: UsageError."""
    if not claims:
        return None
    try:
        found = json.loads(claims)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("iss"), str):
        raise UsageError(
            f"{claims!r} is not the claims of a token", hint="expected a JSON object with iss, the issuer"
        )
    return VerifiedToken(found["iss"], found)


def _shown(part: Struct | str) -> str:
    """A part of a rule in a few words."""
    if isinstance(part, str):
        return part
    lists = {name: getattr(part, name) for name in part.__struct_fields__}
    told = [f"{name} {', '.join(some)}" for name, some in lists.items() if some and isinstance(some, list)]
    return "; ".join(told) or "any"
