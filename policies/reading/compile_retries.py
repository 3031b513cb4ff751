"""What a target of a Traffic document says of retries -> rules; every fault at once."""

import re
from typing import Literal

from policies.errors import CodesError
from policies.reading import own_traffic
from policies.reading.codes import parse_codes
from policies.reading.compile_limits import length
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.rules.budgets import RetryBudget, RetryShare, RetryThrottle
from policies.rules.retries import LEAST_HEDGE_DELAY_S, BackoffRule, HedgeRule, TargetRetries

_MAX_TTL_S = 60.0  # of a budget: what a call deposits is no news for longer
_MAX_ATTEMPTS = 5  # at once, as in gRPC proposal A6
_MEASURED = "p95"
_METHOD = re.compile(r"/[A-Za-z0-9._]{1,256}/[A-Za-z0-9._]{1,256}")
_SHARE = RetryShare()
_THROTTLE = RetryThrottle()


class RetryReader:
    """Reads targets of one document."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._findings = findings

    def read(self, target: own_traffic.Target, place: Place) -> TargetRetries:
        """What it says, written at `place`."""
        return TargetRetries(
            budget=self._budget(target.retry_budget, (*place, "retryBudget")),
            on=target.retry_on,
            backoff=self._backoff(target.backoff or own_traffic.Backoff(), (*place, "backoff")),
            overall_s=self._length(target.overall_timeout, (*place, "overallTimeout")),
            hedging=self._hedging(target.hedging, (*place, "hedging")),
        )

    def _hedging(self, written: own_traffic.Hedging | None, place: Place) -> HedgeRule | None:
        if written is None:
            return None
        delay_s = None
        if written.delay != _MEASURED:
            delay_s = length(self._document, (*place, "delay"), written.delay, self._findings)
        if delay_s is not None and delay_s < LEAST_HEDGE_DELAY_S:
            problem = (
                f"`{written.delay}` is too short (expected 5ms at least: most calls would be made twice)"
            )
            self._findings.fault(self._document, (*place, "delay"), problem)
        for number, method in enumerate(written.methods):
            if _METHOD.fullmatch(method) is None:
                problem = f"`{method}` is not a method of gRPC (expected /package.Service/Method)"
                self._findings.fault(self._document, (*place, "methods", number), problem)
        attempts = self._number(written.max_attempts, (*place, "maxAttempts"), 2, _MAX_ATTEMPTS, 2)
        codes = None
        try:
            codes = parse_codes(written.non_fatal_status_codes, 1, 16)
        except CodesError as error:
            self._findings.fault(self._document, (*place, "nonFatalStatusCodes"), str(error))
        return HedgeRule(
            attempts=int(attempts),
            delay_s=delay_s,
            methods=frozenset(written.methods),
            grpc_codes=frozenset() if codes is None else codes,
        )

    def _budget(
        self, written: own_traffic.RetryBudget | Literal["off"] | bool | None, place: Place
    ) -> RetryBudget | Literal["off"] | None:
        if written is True:
            self._findings.fault(
                self._document, place, "`true` says nothing (expected the fields of a budget, or off)"
            )
        if isinstance(written, bool):
            return "off"
        if written is None or isinstance(written, str):
            return written
        if written.max_tokens is None and written.token_ratio is None:
            return self._share(written, place)
        if (written.ratio, written.min_retries_per_second, written.ttl) != (None, None, None):
            problem = "is a share and a throttle (expected ratio, minRetriesPerSecond and ttl, or maxTokens and tokenRatio)"
            self._findings.fault(self._document, place, problem)
        return RetryThrottle(
            max_tokens=self._number(
                written.max_tokens, (*place, "maxTokens"), 1, 1_000, _THROTTLE.max_tokens
            ),
            token_ratio=self._number(
                written.token_ratio, (*place, "tokenRatio"), 0.001, 1_000, _THROTTLE.token_ratio
            ),
        )

    def _share(self, written: own_traffic.RetryBudget, place: Place) -> RetryShare:
        ttl_s = self._length(written.ttl, (*place, "ttl"))
        if ttl_s is not None and not 1.0 <= ttl_s <= _MAX_TTL_S:
            problem = f"`{written.ttl}` is out of range (expected 1s to {_MAX_TTL_S:g}s)"
            self._findings.fault(self._document, (*place, "ttl"), problem)
        least, spot = written.min_retries_per_second, (*place, "minRetriesPerSecond")
        return RetryShare(
            ratio=self._number(written.ratio, (*place, "ratio"), 0, 1_000, _SHARE.ratio),
            min_per_s=self._number(least, spot, 0, 1_000_000, _SHARE.min_per_s),
            ttl_s=_SHARE.ttl_s if ttl_s is None else ttl_s,
        )

    def _backoff(self, written: own_traffic.Backoff, place: Place) -> BackoffRule:
        multiplier = None
        if written.multiplier is not None:
            multiplier = self._number(written.multiplier, (*place, "multiplier"), 1, 100, 1.0)
        return BackoffRule(
            jitter=written.jitter,
            first_s=self._length(written.initial_interval, (*place, "initialInterval")),
            multiplier=multiplier,
        )

    def _number(self, found: float | None, place: Place, least: float, most: float, usual: float) -> float:
        if found is None:
            return usual
        if not least <= found <= most:
            problem = f"{found:g} is out of range (expected {least:g} to {most:g})"
            self._findings.fault(self._document, place, problem)
        return found

    def _length(self, text: str | None, place: Place) -> float | None:
        return None if text is None else length(self._document, place, text, self._findings)
