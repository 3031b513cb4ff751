"""A real sentry process and real clients: issuing, refusing, renewing, surviving."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.control.identity import Identity, WorkloadName
from sentry.authority import generate
from sentry.bundle import TrustBundle
from sentry.ca_pb2 import SignCertificateRequest
from sentry.client import (
    METHOD,
    Proof,
    Svid,
    SvidClient,
    TokenSource,
    TokenValidator,
    file_token,
    join_token,
    make_csr,
    no_token,
)
from sentry.errors import BundleError, FetchError
from sentry.grpc_call import CallError
from sentry.issuer import dump_key
from sentry.join import mint
from sentry.spiffe import SpiffeId, sentry_id
from sentry.store import DiskStore
from tests.integration.sentry.process import CART, SENTRY_ID, Running, command, raw_call, running_sentry
from tests.support.dapr_authority import dapr_authority
from tests.support.web_pki import WebCa
from tests.unit.sentry.forge import KEY


async def fetch(client: SvidClient, app_id: str = "cart") -> Svid:
    return await client.fetch(app_id, "default", "public")


async def refusal_of(client: SvidClient, app_id: str = "cart") -> FetchError:
    with pytest.raises(FetchError) as refusal:
        await fetch(client, app_id)
    return refusal.value


def fixed(token: str, validator: TokenValidator = TokenValidator.JWKS) -> TokenSource:
    return lambda _: Proof(token=token, validator=validator)


def openssl(*arguments: str, data: bytes = b"") -> str:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def run_sentry(*flags: str) -> "subprocess.CompletedProcess[str]":
    """A sentry that is expected to end by itself."""
    return subprocess.run(command(*flags), capture_output=True, text=True, timeout=60, check=False)


async def code_of(sentry: Running, message: bytes, path: str = METHOD) -> int:
    with pytest.raises(CallError) as refusal:
        await raw_call(sentry, message, path)
    return refusal.value.code


def request(**changes: object) -> bytes:
    values: dict[str, object] = {
        "id": "cart",
        "namespace": "default",
        "trust_domain": "public",
        "certificate_signing_request": make_csr(KEY),
    }
    return SignCertificateRequest(**(values | changes)).SerializeToString()  # type: ignore[arg-type]


async def test_chain_issued_holds_openssls_strict_mode(sentry: Running, tmp_path: Path) -> None:
    svid = await fetch(sentry.client())
    (tmp_path / "chain.pem").write_bytes(svid.chain_pem)
    said = openssl(
        "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(sentry.store / "ca.crt"),
        "-untrusted", str(tmp_path / "chain.pem"), str(tmp_path / "chain.pem"),
    )  # fmt: skip
    assert said.endswith(": OK\n"), said
    host = sentry.addresses[0]
    shown = openssl(
        "s_client", "-connect", host, "-alpn", "h2", "-x509_strict", "-verify_return_error",
        "-CAfile", str(sentry.store / "ca.crt"),
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in shown
    assert "ALPN protocol: h2" in shown
    assert "TLSv1.3" in shown


async def test_svids_of_two_workloads_trust_each_other_in_mutual_tls(sentry: Running, tmp_path: Path) -> None:
    cart, shop = await fetch(sentry.client()), await fetch(sentry.client(), "shop")
    contexts = []
    for number, (svid, side) in enumerate(((cart, ssl.PROTOCOL_TLS_CLIENT), (shop, ssl.PROTOCOL_TLS_SERVER))):
        (tmp_path / f"{number}.pem").write_bytes(svid.chain_pem + svid.key_pem)
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tmp_path / f"{number}.pem")
        context.load_verify_locations(cadata=svid.bundle.pem.decode())
        contexts.append(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(back, there)
    server = contexts[1].wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"
    assert server.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
        cart.chain_pem.decode().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    )


async def test_sentry_serves_on_socket_and_port_at_once(root: Path) -> None:
    path = root / "s.sock"
    flags = ("--unix-socket", str(path), "--port", "0", "--listen-address", "127.0.0.1")
    with running_sentry(root, *flags) as sentry:
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(sentry.addresses) == 2
        for address in sentry.addresses:
            client = SvidClient(address, sentry.anchors, SENTRY_ID, join_token(root, SENTRY_ID))
            assert (await fetch(client)).spiffe_id == CART


async def test_tls_older_than_1_2_is_refused(sentry: Running) -> None:
    said = openssl("s_client", "-connect", sentry.addresses[0], "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    assert "TLSv1.2" in openssl("s_client", "-connect", sentry.addresses[0], "-tls1_2")


async def test_sentry_under_a_foreign_root_is_not_believed(sentry: Running) -> None:
    foreign = generate("localhost", "default", datetime.now(UTC)).bundle
    refusal = await refusal_of(sentry.client(anchors=foreign))
    assert (refusal.step, refusal.is_transient) == ("sentry_identity", False)
    both = foreign.union(sentry.anchors)
    assert (await fetch(sentry.client(anchors=both))).bundle == sentry.anchors


async def test_sentry_with_another_id_is_not_believed(sentry: Running) -> None:
    other = sentry_id("localhost", "elsewhere")
    client = SvidClient(sentry.addresses[0], sentry.anchors, other, join_token(sentry.root, SENTRY_ID))
    refusal = await refusal_of(client)
    assert refusal.step == "sentry_identity"
    assert "expected spiffe://localhost/ns/elsewhere/dapr-sentry" in str(refusal)


async def test_workload_posing_as_sentry_is_not_believed(sentry: Running, tmp_path: Path) -> None:
    svid = await fetch(sentry.client())
    (tmp_path / "rogue.pem").write_bytes(svid.chain_pem + svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "rogue.pem")
    context.set_alpn_protocols(["h2"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as rogue:
        port = rogue.sockets[0].getsockname()[1]
        client = SvidClient(f"127.0.0.1:{port}", sentry.anchors, SENTRY_ID, no_token())
        assert (await refusal_of(client)).step == "sentry_identity"


async def test_sentry_that_is_not_there_or_silent_is_named(root: Path) -> None:
    anchors = generate("localhost", "default", datetime.now(UTC)).bundle
    client = SvidClient(f"unix:{root}/none.sock", anchors, SENTRY_ID, no_token())
    refusal = await refusal_of(client)
    assert (refusal.step, refusal.is_transient) == ("sentry_conn", True)
    assert "none.sock" in str(refusal)


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(
            lambda root: mint(root, SpiffeId("public", "default", "shop"), SENTRY_ID), id="another app"
        ),
        pytest.param(
            lambda root: mint(root, SpiffeId("public", "other", "cart"), SENTRY_ID), id="another namespace"
        ),
        pytest.param(
            lambda root: mint(root, SpiffeId("prod", "default", "cart"), SENTRY_ID), id="another domain"
        ),
        pytest.param(lambda root: mint(root, CART, CART), id="another audience"),
        pytest.param(lambda root: mint(root, CART, SENTRY_ID, clock=lambda: 1e9), id="expired"),
        pytest.param(lambda root: mint(root / "sentry", CART, SENTRY_ID), id="another root's key"),
        pytest.param(lambda root: "", id="none"),
        pytest.param(lambda root: "rubbish", id="rubbish"),
    ],
)
async def test_proof_that_does_not_fit_is_refused_on_the_wire(
    sentry: Running, forge: Callable[[Path], str]
) -> None:
    refusal = await refusal_of(sentry.client(fixed(forge(sentry.root))))
    assert refusal.step == "sign"
    assert "status 7" in str(refusal)
    assert sentry.audit[-1]["decision"] == "refused"


async def test_token_stolen_serves_nobody_a_second_time(sentry: Running) -> None:
    token = mint(sentry.root, CART, SENTRY_ID)
    await fetch(sentry.client(fixed(token)))
    refusal = await refusal_of(sentry.client(fixed(token)))
    assert "used before" in str(refusal)
    assert token not in sentry.log.read_text()
    assert token not in (sentry.root / "sentry" / "audit.jsonl").read_text()


@pytest.mark.parametrize("app_id", ["dapr-sentry", "dapr-operator", "postern-admin"])
async def test_reserved_ids_are_refused_even_with_a_sound_token(sentry: Running, app_id: str) -> None:
    refusal = await refusal_of(sentry.client(), app_id)
    assert "reserved" in str(refusal)


async def test_status_codes_are_those_of_the_interface(sentry: Running) -> None:
    good = {"token": mint(sentry.root, CART, SENTRY_ID), "token_validator": 3}
    assert await code_of(sentry, request(token_validator=2)) == 3
    assert await code_of(sentry, request(token_validator=1)) == 3
    assert await code_of(sentry, request(**(good | {"id": ""}))) == 7
    assert await code_of(sentry, request(**(good | {"id": "a/b"}))) == 3
    assert await code_of(sentry, request(**(good | {"certificate_signing_request": b"DER"}))) == 3
    assert await code_of(sentry, request(token="x" * 20_000)) == 3
    assert await code_of(sentry, request(token="x" * 70_000)) == 8
    assert await code_of(sentry, request(jwt_audiences=["a"] * 5000)) == 3
    assert await code_of(sentry, request(), "/dapr.proto.sentry.v1.CA/Nope") == 12
    assert await raw_call(sentry, request(token=mint(sentry.root, CART, SENTRY_ID)))
    assert (await fetch(sentry.client())).spiffe_id == CART


async def test_identity_asked_for_too_often_is_slowed(root: Path) -> None:
    with running_sentry(root) as sentry:
        token = mint(root, CART, SENTRY_ID)
        message = request(token=token)
        codes: list[int] = []
        while (
            8 not in codes and len(codes) < 700
        ):  # on a busy machine the first 70 may take so long that none is too many
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(_code_or_zero(sentry, message)) for _ in range(70)]
            codes += [call.result() for call in calls]
        assert set(codes) == {0, 8}
        assert codes.count(0) >= 50


async def _code_or_zero(sentry: Running, message: bytes) -> int:
    try:
        await raw_call(sentry, message)
    except CallError as error:
        return error.code
    return 0


async def test_certificates_of_seconds_renew_in_place(root: Path) -> None:
    with running_sentry(root, "--workload-cert-ttl", "2") as sentry:
        identity = Identity(
            sentry.client(), WorkloadName(app_id="cart", namespace="default", trust_domain="public")
        )
        seen: asyncio.Queue[Svid] = asyncio.Queue()
        identity.subscribe(seen.put_nowait)
        svids: list[Svid] = []
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(identity.run())
            while len(svids) < 4:
                svids.append(await seen.get())
                assert svids[-1].life_left_s > 0
                assert identity.status()["state"] in {"held", "renewing"}
            run.cancel()
        assert len({svid.serial for svid in svids}) == 4
        assert all(svid.bundle == sentry.anchors for svid in svids)


async def test_sentry_killed_and_back_keeps_its_roots_and_its_workloads(root: Path) -> None:
    path = root / "s.sock"
    flags = ("--unix-socket", str(path), "--workload-cert-ttl", "3")
    with running_sentry(root, *flags) as sentry:
        anchors, client = sentry.anchors, sentry.client()
        identity = Identity(client, WorkloadName(app_id="cart", namespace="default", trust_domain="public"))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(identity.run())
            first = await identity.first(5)
            os.kill(sentry.pid, signal.SIGKILL)
            with pytest.raises(FetchError):
                await fetch(client)
            with running_sentry(root, *flags) as again:
                assert again.anchors == anchors
                renewed: asyncio.Queue[Svid] = asyncio.Queue()
                identity.subscribe(renewed.put_nowait)
                while (svid := await renewed.get()).serial == first.serial:
                    pass
                assert svid.bundle == anchors
            run.cancel()


async def test_file_deleted_under_a_live_sentry_ends_no_trust(root: Path) -> None:
    with running_sentry(root) as sentry:
        anchors = sentry.anchors
        (sentry.store / "issuer.key").unlink()
        assert (await fetch(sentry.client())).bundle == anchors
    done = run_sentry("--runtime-path", str(root), "--unix-socket", str(root / "s"))
    assert done.returncode == 1
    assert "issuer.key: is missing" in done.stderr
    assert TrustBundle.parse((root / "sentry" / "authority" / "ca.crt").read_bytes()) == anchors


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (("--nope",), 2, "unrecognized arguments"),
        (("--insecure-validator",), 2, "--insecure-validator"),
        (("--unix-socket", "/nonexistent/s"), 1, "can't be listened on"),
    ],
)
def test_bad_start_says_what_is_wrong(root: Path, flags: tuple[str, ...], code: int, text: str) -> None:
    (root / "sentry").mkdir(mode=0o700)
    done = run_sentry("--runtime-path", str(root), *flags)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_second_sentry_on_one_store_is_refused(root: Path) -> None:
    with running_sentry(root):
        done = run_sentry("--runtime-path", str(root), "--unix-socket", str(root / "s"))
        assert (done.returncode, "in use by another sentry" in done.stderr) == (1, True)


def test_port_taken_is_an_error(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (root / "sentry").mkdir(mode=0o700)
        done = run_sentry(
            "--runtime-path",
            str(root),
            "--listen-address",
            "127.0.0.1",
            "--port",
            port,
            "--healthz-port",
            "0",
        )
        assert (done.returncode, "is the port taken" in done.stderr) == (1, True)


def test_healthz_answers_on_its_own_port(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ("--healthz-port", str(port), "--healthz-listen-address", "127.0.0.1")
    with running_sentry(root, *flags):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=30)
        refusal.value.close()
        assert refusal.value.code == 404


async def test_flags_of_daprs_sentry_without_effect_are_named_once(root: Path) -> None:
    with running_sentry(root, "--jwt-enabled", "--oidc-enabled=true") as sentry:
        said = [line for line in sentry.log.read_text().splitlines() if "accepted without effect" in line]
        assert len(said) == 1
        assert "--jwt-enabled, --oidc-enabled" in said[0]


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


async def test_metrics_tell_of_grants_refusals_and_ends_under_daprs_names(root: Path) -> None:
    with running_sentry(root, "-metrics-port=0") as sentry:
        await fetch(sentry.client())
        await refusal_of(sentry.client(fixed("x")))
        said = await asyncio.to_thread(scraped, sentry.metrics)
        for line in (
            "dapr_sentry_cert_sign_request_received_total 2.0",
            "dapr_sentry_cert_sign_success_total 1.0",
            'dapr_sentry_cert_sign_failure_total{reason="sign"} 1.0',
            "dapr_sentry_servercert_issue_failed_total 0.0",
            "dapr_sentry_issuercert_changed_total 0.0",
            'postern_sentry_refusals_total{reason="token-encoding"} 1.0',
        ):
            assert line in said.splitlines()
        for name in (
            "dapr_sentry_issuercert_expiry_timestamp",
            "postern_sentry_root_expiry_timestamp_seconds",
        ):
            assert float(said.partition(f"\n{name} ")[2].split()[0]) > datetime.now(UTC).timestamp()
        assert "\nprocess_resident_memory_bytes " in said


async def test_metrics_are_served_over_tls_from_files_that_may_change(root: Path) -> None:
    first, second = WebCa("first"), WebCa("second")
    files = (root / "cert.pem", root / "key.pem")

    def put(authority: WebCa) -> ssl.SSLContext:
        for file, pem in zip(files, authority.leaf("127.0.0.1"), strict=True):
            file.write_bytes(pem)
        return ssl.create_default_context(cadata=authority.root_pem.decode())

    def read(address: str, tls: ssl.SSLContext) -> str:
        with urllib.request.urlopen(f"https://{address}/metrics", timeout=30, context=tls) as answer:
            return str(answer.read().decode())

    trusted = put(first)
    flags = ("--metrics-tls-cert", str(files[0]), "--metrics-tls-key", str(files[1]))
    with running_sentry(root, "--metrics-port=0", *flags) as sentry:
        assert "dapr_sentry_cert_sign_success_total" in await asyncio.to_thread(read, sentry.metrics, trusted)
        with pytest.raises(OSError, match=r"."):  # in the clear
            await asyncio.to_thread(scraped, sentry.metrics)
        renewed = put(second)
        assert "dapr_sentry_cert_sign_success_total" in await asyncio.to_thread(read, sentry.metrics, renewed)
        files[0].write_text("no certificate")
        assert "dapr_sentry_cert_sign_success_total" in await asyncio.to_thread(read, sentry.metrics, renewed)
        assert sentry.log.read_text().count("the old ones stay in force") == 1
    socket_flags = ("--runtime-path", str(root), "--unix-socket", str(root / "s"))
    done = run_sentry(*socket_flags, "--metrics-port=0", *flags)
    assert (done.returncode, "can't be used for the metrics port" in done.stderr) == (1, True)
    done = run_sentry(*socket_flags, "--metrics-port=0", *flags[:2])
    assert "--metrics-tls-cert: needs --metrics-tls-key" in done.stderr


async def test_credentials_in_a_folder_that_others_may_enter_are_taken_with_a_warning_if_asked(
    root: Path,
) -> None:
    store = root / "brought"
    with DiskStore(store) as files:
        files.save(dapr_authority(datetime.now(UTC)))
    store.chmod(0o755)
    flags = ("--issuer-credentials", str(store))
    done = run_sentry("--runtime-path", str(root), "--unix-socket", str(root / "s"), *flags)
    assert (done.returncode, f"chmod 0700 {store}, or --allow-loose-store" in done.stderr) == (1, True)
    with running_sentry(root, *flags, "-allow-loose-store") as sentry:
        anchors = TrustBundle.parse((store / "ca.crt").read_bytes())
        assert (await fetch(sentry.client(anchors=anchors))).spiffe_id == CART
        assert f"{store}: has mode 0755" in sentry.log.read_text()


async def test_join_key_open_to_others_proves_nothing_until_it_is_closed_again(root: Path) -> None:
    key = root / "sentry" / "join.key"
    with running_sentry(root) as sentry:
        await fetch(sentry.client())
        token = mint(root, CART, SENTRY_ID)
        key.chmod(0o644)
        assert "signed by an unknown key" in str(await refusal_of(sentry.client(fixed(token))))
        assert f"{key}: has mode 0644, expected 0600: chmod 0600 {key}" in sentry.log.read_text()
        assert "has mode 0644" in str(await refusal_of(sentry.client()))
        key.chmod(0o600)
        await fetch(sentry.client(fixed(token)))


async def test_join_key_that_was_removed_proves_nothing_any_more(root: Path) -> None:
    with running_sentry(root) as sentry:
        await fetch(sentry.client())
        token = mint(root, CART, SENTRY_ID)
        (root / "sentry" / "join.key").unlink()
        assert "signed by an unknown key" in str(await refusal_of(sentry.client(fixed(token))))
        await fetch(sentry.client())


def test_join_key_open_to_others_ends_the_start(root: Path) -> None:
    with running_sentry(root):
        pass
    key = root / "sentry" / "join.key"
    key.chmod(0o640)
    done = run_sentry("--runtime-path", str(root), "--unix-socket", str(root / "s"))
    assert (done.returncode, f"{key}: has mode 0640" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe"])
def test_pid_is_written_into_a_plain_file_of_its_own_alone(root: Path, kind: str) -> None:
    (root / "sentry").mkdir(mode=0o700)
    victim, pid = root / "victim", root / "sentry" / "sentry.pid"
    victim.write_text("precious")
    if kind == "symbolic link":
        pid.symlink_to(victim)
    elif kind == "hard link":
        pid.hardlink_to(victim)
    else:
        os.mkfifo(pid)
    done = run_sentry("--runtime-path", str(root), "--unix-socket", str(root / "s"))
    assert done.returncode == 1
    assert f"{pid}: can't be written: " in done.stderr
    assert kind != "symbolic link" or "is a symbolic link, which is not followed: remove it" in done.stderr
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "precious"
    pid.unlink()


async def test_audit_tells_grants_and_refusals(root: Path) -> None:
    with running_sentry(root) as sentry:
        svid = await fetch(sentry.client())
        await refusal_of(sentry.client(fixed("x")))
        made, granted, refused = sentry.audit
        assert made["event"] == "authority-generated"
        assert (granted["decision"], granted["granted_id"], granted["serial"]) == (
            "granted",
            str(CART),
            svid.serial,
        )
        assert (granted["validator"], granted["key_type"]) == ("jwks", "P-256")
        assert (refused["decision"], refused["reason"]) == ("refused", "token-encoding")
        assert (root / "sentry" / "audit.jsonl").stat().st_mode & 0o777 == 0o600
        text = (root / "sentry" / "audit.jsonl").read_text() + sentry.log.read_text()
        assert "PRIVATE" not in text


async def test_insecure_validator_is_loud_and_still_refuses_reserved_ids(root: Path) -> None:
    with running_sentry(root, "--insecure-validator") as sentry:
        assert "INSECURE" in sentry.log.read_text()
        insecure = fixed("", TokenValidator.INSECURE)
        assert (await fetch(sentry.client(insecure))).spiffe_id == CART
        assert "reserved" in str(await refusal_of(sentry.client(insecure), "dapr-placement"))


async def test_tokens_of_a_configured_key_set_are_taken(root: Path) -> None:
    issuer = ec.generate_private_key(ec.SECP256R1())
    member = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(issuer.public_key())) | {"kid": "platform"}
    (root / "keys.json").write_text(json.dumps({"keys": [member]}))
    (root / "config.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: daprsystem}\nspec:\n  mtls:\n"
        "    workloadCertTTL: 30m\n    tokenValidators:\n    - name: JWKS\n      options:\n"
        f"        source: {root}/keys.json\n        maxTokenLifetime: 1h\n"
    )
    now = int(datetime.now(UTC).timestamp())
    claims = {"aud": str(SENTRY_ID), "sub": str(CART), "iat": now, "exp": now + 3600, "iss": "platform"}
    (root / "token").write_text(
        jwt.encode(claims, issuer, algorithm="ES256", headers={"kid": "platform"}) + "\n"
    )
    with running_sentry(root, "--config", str(root / "config.yaml")) as sentry:
        svid = await fetch(sentry.client(file_token(root / "token")))
        assert 1790 < svid.life_left_s <= 1800
        assert (await fetch(sentry.client())).spiffe_id == CART
        assert sentry.audit[1]["token_issuer"] == "platform"


async def test_token_file_missing_or_empty_is_named(sentry: Running, tmp_path: Path) -> None:
    refusal = await refusal_of(sentry.client(file_token(tmp_path / "none")))
    assert (refusal.step, "none" in str(refusal)) == ("sentry_token", True)
    (tmp_path / "empty").write_text("\n")
    assert "is empty" in str(await refusal_of(sentry.client(file_token(tmp_path / "empty"))))


async def test_authority_of_another_maker_is_served_and_believed(root: Path) -> None:
    store = root / "brought"
    with DiskStore(store) as files:
        files.save(dapr_authority(datetime.now(UTC)))
    with running_sentry(root, "--issuer-credentials", str(store)) as sentry:
        anchors = TrustBundle.parse((store / "ca.crt").read_bytes())
        assert not anchors.is_strict
        assert (await fetch(sentry.client(anchors=anchors))).bundle == anchors
        assert {path.name for path in store.iterdir()} == {"ca.crt", "issuer.crt", "issuer.key", ".lock"}


async def test_issuer_expired_of_another_maker_signs_nothing(root: Path) -> None:
    store = root / "brought"
    with DiskStore(store) as files:
        files.save(dapr_authority(datetime.now(UTC) - timedelta(days=400)))
    done = run_sentry(
        "--runtime-path", str(root), "--issuer-credentials", str(store), "--unix-socket", str(root / "s")
    )
    assert (done.returncode, "issuer's certificate ends" in done.stderr) == (1, True), done.stderr


async def test_issuer_of_ours_near_its_end_is_renewed_at_start(root: Path) -> None:
    store = root / "sentry" / "authority"
    old = generate("localhost", "default", datetime.now(UTC) - timedelta(days=400)).stored()
    (root / "sentry").mkdir(mode=0o700)
    with DiskStore(store) as files:
        files.save(old)
    with running_sentry(root) as sentry:
        assert (await fetch(sentry.client())).bundle.pem == old.anchors_pem
        assert (store / "issuer.crt").read_bytes() != old.issuer_pem
        assert [line["event"] for line in sentry.audit] == ["issuer-renewed", "sign"]


async def test_root_replaced_with_overlap_moves_a_live_workload(root: Path) -> None:
    """Old and new root, then the new issuer, then the new root alone: no restart, no refusal on the way."""
    successor = generate("localhost", "default", datetime.now(UTC))
    with running_sentry(root, "--workload-cert-ttl", "1") as sentry:
        old = sentry.anchors
        name = WorkloadName(app_id="cart", namespace="default", trust_domain="public")
        identity = Identity(sentry.client(), name)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(identity.run())
            both = old.union(successor.bundle)
            put(sentry.store / "ca.crt", both.pem)
            await held(identity, both)
            (sentry.store / "root.key").unlink()
            put(sentry.store / "issuer.key", dump_key(successor.issuer.key))
            put(sentry.store / "issuer.crt", successor.issuer.chain_pem)
            await issued_under(identity, successor.bundle)
            put(sentry.store / "ca.crt", successor.bundle.pem)
            await held(identity, successor.bundle)
            assert identity.status()["failures"] == 0
            run.cancel()
        assert "Traceback" not in sentry.log.read_text()


def put(path: Path, content: bytes) -> None:
    """Change a file as an editor does."""
    path.with_suffix(".tmp").write_bytes(content)
    path.with_suffix(".tmp").chmod(0o600)
    path.with_suffix(".tmp").rename(path)


async def held(identity: Identity, bundle: TrustBundle) -> None:
    """Wait for an SVID with exactly this bundle."""
    seen: asyncio.Queue[Svid] = asyncio.Queue()
    identity.subscribe(seen.put_nowait)
    while (await seen.get()).bundle != bundle:
        pass


async def issued_under(identity: Identity, bundle: TrustBundle) -> None:
    """Wait for an SVID that chains to this bundle alone."""
    seen: asyncio.Queue[Svid] = asyncio.Queue()
    identity.subscribe(seen.put_nowait)
    while True:
        try:
            bundle.verify((await seen.get()).chain_pem, datetime.now(UTC))
        except BundleError:
            continue
        return
