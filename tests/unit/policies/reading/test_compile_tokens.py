"""`spec.jwt` and `when.jwt` of AccessPolicies: what they ask for, and where their faults are."""

from pathlib import Path

import pytest

from policies.rules.access_policies import Asked
from policies.rules.tokens import KeySource, TokenIssuer, VerifiedToken
from tests.unit.policies.reading.test_compile_access_policies import CART, enforced, faults, policy, rule

IDP = "https://idp.example"
ENTRY = {"name": "idp", "issuer": IDP, "audiences": ["shop"]}


def asks(**jwt: object) -> dict[str, object]:
    return rule(when={"jwt": jwt})


def test_rule_is_for_users_of_its_issuers_with_its_claims(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(asks(issuers=["idp"], claims={"role": ["admin"]}), jwt=[ENTRY]))
    allowed = [
        rules.evaluate(Asked(CART, False, "GET", False, ((),), lambda _: False, token)).allowed
        for token in (
            VerifiedToken(IDP, {"role": "admin"}),
            VerifiedToken(IDP, {"role": "user"}),
            VerifiedToken("https://other", {"role": "admin"}),
            None,
        )
    ]
    assert allowed == [True, False, False, False]


def test_keys_are_at_a_url_in_a_file_or_to_be_found(tmp_path: Path) -> None:
    entries = (
        ENTRY,
        {
            "name": "b",
            "issuer": "b",
            "audiences": ["x", "y"],
            "jwksUrl": "https://b/keys",
            "forwardClaims": ["sub"],
        },
        {"name": "c", "issuer": "c", "audiences": ["x"], "jwksFile": "keys.json"},
    )
    rules = enforced(tmp_path, policy(jwt=entries))
    assert rules.issuers[0] == TokenIssuer(name="idp", keys=KeySource(issuer=IDP), audiences=("shop",))
    assert rules.issuers[1].keys == KeySource(issuer="b", url="https://b/keys")
    assert (rules.issuers[1].audiences, rules.issuers[1].forwarded) == (("x", "y"), ("sub",))
    assert rules.issuers[2].keys.file.endswith("/keys.json")
    assert Path(rules.issuers[2].keys.file).is_absolute()


def test_later_policy_may_use_the_issuers_of_an_earlier_one(tmp_path: Path) -> None:
    first = policy(jwt=[ENTRY], name="first")
    assert enforced(tmp_path, first, policy(asks(issuers=["idp"]), jwt=[ENTRY], name="second")).issuers
    other = {**ENTRY, "audiences": ["other"]}
    found = faults(tmp_path, first, policy(jwt=[other], name="second"))
    assert found == ["spec.jwt[0]: is not as an earlier policy has it (expected one entry for each issuer)"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": ""}, "spec.jwt[0].name: is missing (expected a name for rules)"),
        ({"issuer": ""}, "spec.jwt[0].issuer: is missing (expected the `iss` of its tokens)"),
        ({"issuer": "idp"}, "spec.jwt[0].issuer: is not a URL to find its keys at (expected one, or jwksUrl or jwksFile)"),
        ({"audiences": []}, "spec.jwt[0].audiences: is empty (expected whom its tokens are for, such as this app)"),
        ({"jwksUrl": "keys"}, "spec.jwt[0].jwksUrl: `keys` is not a URL (expected https://HOST/PATH)"),
        ({"jwksUrl": "https://a/", "jwksFile": "b"}, "spec.jwt[0].jwksFile: is beside jwksUrl (expected one of both)"),
    ],
)  # fmt: skip
def test_faults_of_issuers(tmp_path: Path, entry: dict[str, object], said: str) -> None:
    assert faults(tmp_path, policy(jwt=[{**ENTRY, **entry}])) == [said]


def test_faults_of_rules(tmp_path: Path) -> None:
    said = faults(tmp_path, policy(asks(issuers=["idq"], claims={"": ["x"], "role": [""]}), jwt=[ENTRY]))
    assert said == [
        "spec.rules[0].when.jwt.issuers[0]: `idq` is not in spec.jwt (expected one of idp)",
        "spec.rules[0].when.jwt.claims.: is not a claim with values (expected texts)",
        "spec.rules[0].when.jwt.claims.role: is not a claim with values (expected texts)",
    ]
    assert faults(tmp_path, policy(asks())) == [
        "spec.rules[0].when.jwt: has no issuer whose tokens would count (expected one in spec.jwt)"
    ]
