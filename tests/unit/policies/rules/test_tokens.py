"""What rules ask of verified tokens."""

from typing import Any

import pytest

from policies.rules.tokens import TokenCondition, VerifiedToken

IDP = "https://idp.example"


def holds(
    claims: dict[str, Any], *wanted: tuple[str, tuple[str, ...]], issuers: tuple[str, ...] = ()
) -> bool:
    condition = TokenCondition(
        issuers=frozenset(issuers), claims=tuple((claim, frozenset(values)) for claim, values in wanted)
    )
    return condition.holds(VerifiedToken(IDP, claims))


def test_call_without_token_meets_no_condition() -> None:
    assert not TokenCondition().holds(None)
    assert TokenCondition().holds(VerifiedToken(IDP, {}))


def test_issuer_must_be_one_of_those_asked_for() -> None:
    assert holds({}, issuers=(IDP, "https://other"))
    assert not holds({}, issuers=("https://other",))


@pytest.mark.parametrize(
    ("claims", "claim", "values", "expected"),
    [
        ({"role": "admin"}, "role", ("admin", "ops"), True),
        ({"role": "Admin"}, "role", ("admin",), False),
        ({"role": "admin"}, "role", (), True),  # any value
        ({}, "role", (), False),
        ({"role": ""}, "role", ("admin",), False),
        ({"groups": ["a", "b"]}, "groups", ("b",), True),
        ({"groups": []}, "groups", (), False),
        ({"groups": [["b"], {"b": 1}, None]}, "groups", ("b",), False),
        ({"scope": "read write"}, "scope", ("write",), True),
        ({"scope": "rewrite"}, "scope", ("write",), False),
        ({"role": "read write"}, "role", ("write",), False),
        ({"realm": {"roles": ["x"]}}, "realm.roles", ("x",), True),
        ({"realm.roles": ["y"], "realm": {"roles": ["x"]}}, "realm.roles", ("x",), False),
        ({"https://shop/role": "x"}, "https://shop/role", ("x",), True),
        ({"level": 3, "ok": True}, "level", ("3",), True),
        ({"level": 3, "ok": True}, "ok", ("true",), True),
        ({"level": {"3": 1}}, "level", ("3",), False),
        ({"realm": "x"}, "realm.roles", ("x",), False),
    ],
)
def test_claims(claims: dict[str, Any], claim: str, values: tuple[str, ...], *, expected: bool) -> None:
    assert holds(claims, (claim, values)) is expected


def test_each_claim_must_hold() -> None:
    claims = {"role": "admin", "tenant": "a"}
    assert holds(claims, ("role", ("admin",)), ("tenant", ("a",)))
    assert not holds(claims, ("role", ("admin",)), ("tenant", ("b",)))
