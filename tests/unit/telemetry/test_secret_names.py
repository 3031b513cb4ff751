"""Names of what may be a secret."""

import pytest

from telemetry.secret_names import is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        *("token", "apiToken", "API_KEY", "x-api-key", "Authorization", "proxy-authorization", "Set-Cookie"),
        *(
            "dapr-api-token",
            "X-Auth",
            "x-session-id",
            "x-amz-signature",
            "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
        ),
    ],
)
def test_names_of_secrets_are_known_however_they_are_written(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("name", "endpointAddress", "tokenValidators", "secretKeyRef", "samplingRate", "appId"),
        *("x-request-id", "user-agent", "Idempotency-Key", "content-type"),
    ],
)
def test_names_of_other_things_are_left(name: str) -> None:
    assert not is_secret_name(name)
