"""Secrets of hostile names and shapes do not survive."""

import pytest

from proxy.cli.redaction import redact, redact_text

SECRET = "hunter2"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "token",
            "apiToken",
            "API_KEY",
            "api-key",
            "x-api-key",
            "Authorization",
            "proxy-authorization",
            "Cookie",
        ),
        *(
            "clientSecret",
            "password",
            "PASSWD",
            "passphrase",
            "private_key",
            "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
            "Pass-Word",
            "credentials",
        ),
        *(
            "connectionString",
            "httpAuth",
            "key",
            "sharedKey",
            "SESSION_ID",
            "pa\u200bssword",
            "\u202eauthorization",
        ),
    ],
)
def test_values_of_secrets_go_however_their_names_are_written(name: str) -> None:
    assert SECRET not in str(redact({name: SECRET}))
    assert SECRET not in str(redact({name: {"inner": [SECRET]}}))
    assert SECRET not in str(redact({name: [{"inner": SECRET}, SECRET]}))


def test_values_of_headers_metadata_and_environment_go_and_their_names_stay() -> None:
    document = {
        "headers": [{"name": "x-plain", "value": SECRET}, "x-other=" + SECRET, "x-third: " + SECRET, SECRET],
        "metadata": [{"name": "clientID", "value": SECRET, "secretKeyRef": {"name": SECRET}}],
        "env": {"PLAIN": SECRET, "N": 5},
    }
    assert redact(document) == {
        "headers": [
            {"name": "x-plain", "value": "(removed)"},
            "x-other=(removed)",
            "x-third:(removed)",
            "(removed)",
        ],
        "metadata": [{"name": "clientID", "value": "(removed)", "secretKeyRef": {"name": "(removed)"}}],
        "env": {"PLAIN": "(removed)", "N": "(removed)"},
    }
    assert redact({"metadata": {"name": "cart"}}) == {"metadata": {"name": "cart"}}
    assert redact({"token": None, "enabled": True, "n": 3}) == {"token": None, "enabled": True, "n": 3}


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/path",
        f"https://host/path?code={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"bearer {SECRET}",
        f"python app.py --api-token {SECRET} --port 1",
        f"dapr-api-token={SECRET}",
        f'{{"password": "{SECRET} and more"}}',
        f"clientSecret: '{SECRET}'",
        f"x eyJhbGciOiJub25l.{SECRET}.sig y",
        f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_shapes_of_secrets_are_taken_out_of_lines(text: str) -> None:
    assert SECRET not in redact_text(text)
    assert SECRET not in str(redact({"plain": text, "list": [text], text: "x"}))


def test_other_lines_are_left() -> None:
    line = 'time="2026" level=info msg="listening" app_id=cart grpc=1 http=2 url=http://localhost:9411/api'
    assert redact_text(line) == line
