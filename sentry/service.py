"""What happens to one signing request: limits, proof, CSR, signature, audit line. Knows no transport."""

import hashlib
import uuid
from collections import Counter
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Struct

from sentry.attest import MAX_TOKEN_BYTES, Ask, Attestor, Grant
from sentry.audit import AuditLog
from sentry.authority import Authority, Signed
from sentry.ca_pb2 import SignCertificateRequest, SignCertificateResponse
from sentry.csr import MAX_CSR_BYTES, SigningRequest, parse_csr
from sentry.errors import AttestationError, IdentityError, RateLimitError, RequestError, SentryError
from sentry.issuer import public_bytes
from sentry.key_ledger import KeyLedger
from sentry.rate import RateLimiter
from sentry.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId, TrustDomain

MAX_AUDIENCES: Final = 8
MAX_AUDIENCE_BYTES: Final = 256
_MAX_LOGGED: Final = 256


class ServicePolicy(Struct, frozen=True, kw_only=True):
    """Choices of the operator."""

    strict_csr: bool = False
    default_trust_domain: str = DEFAULT_TRUST_DOMAIN


class SigningService:
    """Answers SignCertificate. `signed_count` grows with every grant, `refused` by reason with every other end."""

    def __init__(
        self,
        authority: Authority,
        attestor: Attestor,
        audit: AuditLog,
        *,
        limiter: RateLimiter,
        policy: ServicePolicy,
        keys: KeyLedger,
    ) -> None:
        """Owns none of its parts."""
        self._authority = authority
        self._attestor = attestor
        self._audit = audit
        self._limiter = limiter
        self._policy = policy
        self._keys = keys
        self.signed_count = 0
        self.refused: Counter[str] = Counter()

    async def answer(self, request: SignCertificateRequest, peer: str) -> SignCertificateResponse:
        """Sign or refuse, and write the audit line either way.

        Raises: RequestError, AttestationError, RateLimitError, SigningError, StoreError.
        """
        facts: dict[str, object] = {
            "request_id": uuid.uuid4().hex,
            "peer": peer,
            "validator": int(request.token_validator),
            "asked_id": request.id[:_MAX_LOGGED],
            "asked_namespace": request.namespace[:_MAX_LOGGED],
            "asked_trust_domain": request.trust_domain[:_MAX_LOGGED],
        }
        try:
            response = await self._answer(request, facts)
        except SentryError as error:
            self.refused[_reason(error)] += 1
            facts |= {"decision": "refused", "reason": _reason(error)}
            self._audit.write("sign", facts)
            raise
        self._audit.write("sign", facts | {"decision": "granted", "reason": "proof"})
        self.signed_count += 1
        return response

    async def _answer(
        self, request: SignCertificateRequest, facts: dict[str, object]
    ) -> SignCertificateResponse:
        _check_limits(request)
        validator = self._attestor.validator(request.token_validator)
        _check_whole(request)
        asked = _asked_id(request, self._policy.default_trust_domain)
        csr_hash = hashlib.sha256(request.certificate_signing_request).hexdigest()
        ask = Ask(spiffe_id=asked, token=request.token, csr_hash=csr_hash)
        grant = await validator.validate(ask)
        facts |= _grant_facts(grant)
        self._limiter.take(str(grant.spiffe_id))
        csr = parse_csr(request.certificate_signing_request)
        facts |= {"csr_sha256": csr_hash, "key_type": csr.key_type, "csr_extras": list(csr.extras)[:16]}
        if csr.extras and self._policy.strict_csr:
            raise RequestError("csr-extras", "the certificate signing request asks for more than a key")
        return self._sign(grant, csr, facts)

    def _sign(self, grant: Grant, csr: SigningRequest, facts: dict[str, object]) -> SignCertificateResponse:
        self._keys.claim(hashlib.sha256(public_bytes(csr.public_key)).hexdigest(), grant.spiffe_id)
        signed = self._authority.sign(grant.spiffe_id, csr.public_key)
        facts |= {
            "serial": f"{signed.leaf.serial_number:x}",
            "not_before": signed.leaf.not_valid_before_utc.isoformat(),
            "not_after": signed.leaf.not_valid_after_utc.isoformat(),
        }
        return _response(signed)


def _check_limits(request: SignCertificateRequest) -> None:
    if len(request.certificate_signing_request) > MAX_CSR_BYTES:
        raise RequestError(
            "csr-size", f"the certificate signing request is larger than {MAX_CSR_BYTES} bytes"
        )
    if len(request.token) > MAX_TOKEN_BYTES:
        raise RequestError("token-size", f"the token is larger than {MAX_TOKEN_BYTES} bytes")
    audiences = request.jwt_audiences
    if len(audiences) > MAX_AUDIENCES or any(len(audience) > MAX_AUDIENCE_BYTES for audience in audiences):
        raise RequestError(
            "audiences", f"expected at most {MAX_AUDIENCES} audiences of at most {MAX_AUDIENCE_BYTES} bytes"
        )


def _check_whole(request: SignCertificateRequest) -> None:
    needed = {
        "CSR": request.certificate_signing_request,
        "app ID": request.id,
        "namespace": request.namespace,
    }
    missing = [f"{name} is required" for name, value in needed.items() if not value]
    if missing:
        raise AttestationError("incomplete", "; ".join(missing))


def _asked_id(request: SignCertificateRequest, default_trust_domain: str) -> SpiffeId:
    trust_domain = request.trust_domain or default_trust_domain
    try:
        return SpiffeId(TrustDomain.parse(trust_domain), request.namespace, request.id)
    except IdentityError as error:
        # Dapr's sentry answers PermissionDenied to a bad trust domain or app-id; what is not a legal id at all, or too
        # long, is the request's fault.
        if error.rule in {"trust-domain", "app-id"} and len(trust_domain) <= MAX_AUDIENCE_BYTES:
            raise AttestationError(error.rule, str(error)) from error
        raise RequestError(error.rule, str(error)) from error


def _grant_facts(grant: Grant) -> dict[str, object]:
    return {
        "granted_id": str(grant.spiffe_id),
        "validator": grant.validator.name.lower(),
        "token_issuer": grant.token_issuer[:_MAX_LOGGED],
        "token_subject": grant.token_subject[:_MAX_LOGGED],
        "token_sha256": grant.token_hash,
    }


def _response(signed: Signed) -> SignCertificateResponse:
    valid_until = Timestamp()
    valid_until.FromSeconds(int(signed.leaf.not_valid_after_utc.timestamp()))
    return SignCertificateResponse(
        workload_certificate=signed.chain_pem,
        trust_chain_certificates=[signed.bundle.pem],
        valid_until=valid_until,
    )


def _reason(error: SentryError) -> str:
    if isinstance(error, RequestError | AttestationError):
        return error.reason
    return "rate" if isinstance(error, RateLimitError) else "signing"
