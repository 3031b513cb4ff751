"""The exception tree of sentry: one class for each thing a caller can act on."""


class SentryError(Exception):
    """Base of everything that this package raises on purpose."""


class IdentityError(SentryError):
    """A SPIFFE id or a peer's certificate breaks a rule; `rule` names it in one word."""

    def __init__(self, rule: str, problem: str) -> None:
        super().__init__(problem)
        self.rule = rule


class BundleError(SentryError):
    """Trust anchors, or a chain under them, don't hold together."""


class StoreError(SentryError):
    """The authority's files are missing, half there, unsafe or in use; `path` names the one."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class StoreInUseError(StoreError):
    """Another process has the authority's files open."""


class SettingsError(SentryError):
    """Flags or configuration make no sense; `faults` lists every one found."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class RequestError(SentryError):
    """The request is malformed or over a limit (INVALID_ARGUMENT); `reason` is one word for the audit log."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class AttestationError(SentryError):
    """The proof does not cover what was asked (PERMISSION_DENIED); `reason` as in `RequestError`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class RateLimitError(SentryError):
    """Asked too often (RESOURCE_EXHAUSTED); `retry_after_s` says when to try again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests for this identity, retry in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class SigningError(SentryError):
    """The authority can't sign (its issuer expired, or what it signed fails its own check)."""


class FetchError(SentryError):
    """No certificate came back.

    `step` is one of sentry_conn, sentry_identity, sentry_token, sign, invalid_ts, leaf;
    `is_transient` says that the same request may succeed at once.
    """

    def __init__(self, step: str, problem: str, *, is_transient: bool = False) -> None:
        super().__init__(problem)
        self.step = step
        self.is_transient = is_transient


class LocalSentryError(SentryError):
    """The runtime root's own sentry did not come up; the message carries the end of its log."""
