"""Shows the shop in the mesh: `python -m examples.boutique.demo [--once]`.

Starts everything, buys something through the page, prints where to look, and stays until Ctrl-C; with `--once` it
checks itself instead, and its exit code says whether all was as it should be.
"""

import argparse
import fcntl
import json
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from examples.boutique import zipkin
from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.errors import CommandFailedError, DemoError, ZipkinUnavailableError
from examples.boutique.mesh import (
    BIN,
    CONFIGURATION,
    PROJECT,
    Mesh,
    configuration_with_zipkin,
    run_file_in,
)
from examples.boutique.processes import Deadline
from examples.boutique.shopper import Receipt, Shopper
from examples.boutique.trace_check import CHECKOUT_CALLS, Check, check_checkout

FOLDER = PROJECT / ".demo"
ZIPKIN_FOLDER = PROJECT / ".cache" / "zipkin"
OPEN_S = 180.0  # eighteen processes and a Java one on a small, busy machine
MAX_DEMOS = 9
TRACE_S = 15.0
CALL_S = 10.0
SERVICES = frozenset(name for pair in CHECKOUT_CALLS for name in pair) | {"recommendation"}


def main() -> int:
    """Read the flags and show the shop; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="python -m examples.boutique.demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="check the checkout's trace, stop, and exit 0 or 1"
    )
    parser.add_argument(
        "--no-zipkin", action="store_true", help="leave Zipkin out even if it could be started"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where logs and state go (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _free_folder(options.folder.resolve()) as folder:
            return _show(folder, is_once=options.once, with_zipkin=not options.no_zipkin)
    except KeyboardInterrupt:
        return 130
    except (DemoError, OSError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1


@contextmanager
def _free_folder(wanted: Path) -> Iterator[Path]:
    """The folder asked for, or one inside it while another demonstration is in there. Raises: DemoError."""
    for number in range(1, MAX_DEMOS + 1):
        folder = wanted if number == 1 else wanted / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder
            return
    raise DemoError(f"{MAX_DEMOS} demonstrations run already, in {wanted}")


def _show(folder: Path, *, is_once: bool, with_zipkin: bool) -> int:
    with ExitStack() as stack:
        tracer = stack.enter_context(_zipkin(folder)) if with_zipkin else None
        policy = configuration_with_zipkin(folder, tracer.spans_url) if tracer else CONFIGURATION
        print("Starting nine services, each with its own proxy …", flush=True)
        mesh = stack.enter_context(Mesh(run_file_in(folder, policy), folder))
        deadline = Deadline(OPEN_S)
        shopper = Shopper(mesh.page(deadline))
        while not shopper.is_open():
            mesh.wait_on("the page did not open", deadline)
        tracer = _when_ready(tracer)
        receipt = shopper.buy("lamp", "mug")
        checks = _wait_for_trace(mesh, receipt)
        dashboard = stack.enter_context(mesh.dashboard())
        _print_where_to_look(
            mesh, receipt, tracer, page=mesh.page(deadline), policy=policy, dashboard=dashboard
        )
        if is_once:
            checks += (*_look_further(mesh, receipt, tracer), _check_dashboard(dashboard))
            mesh.stop()
            checks += (
                Check(
                    title="everything stopped when asked",
                    passed=mesh.ended_cleanly,
                    found="it had to be killed",
                ),
            )
            return _print_checks(checks)
        print("\nCtrl-C stops everything.", flush=True)
        return _stay(mesh)


def _stay(mesh: Mesh) -> int:
    try:
        code = mesh.wait()
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        return 0
    raise DemoError(f"postern run ended with {code}\n{mesh.tail()}")


@contextmanager
def _zipkin(folder: Path) -> Iterator[zipkin.Zipkin | None]:
    """A Zipkin that starts beside the mesh; None, and why, where that cannot be."""
    if not zipkin.is_possible():
        print("No Zipkin: it takes Java and Maven.", flush=True)
        yield None
        return
    try:
        if not zipkin.jar_in(ZIPKIN_FOLDER).exists():
            print("Fetching Zipkin with Maven, this first time …", flush=True)
        jar = zipkin.fetch(ZIPKIN_FOLDER)
    except ZipkinUnavailableError as error:
        print(f"No Zipkin: {error}", flush=True)
        yield None
        return
    with zipkin.run_zipkin(jar, folder / "zipkin.log") as running:
        yield running


def _when_ready(tracer: zipkin.Zipkin | None) -> zipkin.Zipkin | None:
    if tracer is None:
        return None
    try:
        tracer.wait_until_ready()
    except ZipkinUnavailableError as error:
        print(f"No Zipkin: {error}", flush=True)
        return None
    return tracer


def _wait_for_trace(mesh: Mesh, receipt: Receipt) -> tuple[Check, ...]:
    """Look at the last trace until all of it is there; at the end, whatever is."""
    deadline = Deadline(TRACE_S)
    while True:
        checks = check_checkout(_last_trace(mesh), receipt.trace_id)
        if all(check.passed for check in checks) or deadline.is_past():
            return checks
        mesh.wait_on("the trace was not complete", deadline)


def _last_trace(mesh: Mesh) -> object:
    try:
        return mesh.ask("trace", "--last")
    except CommandFailedError:
        return None  # no trace yet; if it stays so, printing it says why


def _print_where_to_look(
    mesh: Mesh, receipt: Receipt, tracer: zipkin.Zipkin | None, *, page: str, policy: Path, dashboard: str
) -> None:
    print(f"""
The shop is open:  http://{page}/
The mesh, live:    {dashboard}

Its proxies:

{_table_of(mesh.ask("list"))}

Order {receipt.order_id} has just been placed through the page. Its trace:

{mesh.command("trace", "--last").rstrip()}
""")
    if tracer:
        print(f"The same trace in Zipkin:  {tracer.link(receipt.trace_id)}\n")
    print(f"What the services and proxies say: {mesh.log}")
    print(f"Who may call what: {policy} (an edit takes effect within a second)")
    print(
        f"From another terminal, after buying something:\n\n"
        f"  export POSTERN_HOME={mesh.home} PATH={BIN}:$PATH\n"
        "  postern trace --last\n  postern status\n  postern endpoints cart",
        flush=True,
    )


def _table_of(proxies: object) -> str:
    rows = [row for row in proxies if isinstance(row, dict)] if isinstance(proxies, list) else []
    lines = [f"  {'APP':<16}{'ITS PORT':>9}  {'PROXY: HTTP':>11}{'GRPC':>7}{'METRICS':>9}"]
    lines += [
        f"  {row['appId']:<16}{row['appPort']:>9}  {row['httpPort']:>11}{row['grpcPort']:>7}{row['metricsPort']:>9}"
        for row in rows
    ]
    return "\n".join(lines)


def _look_further(mesh: Mesh, receipt: Receipt, tracer: zipkin.Zipkin | None) -> tuple[Check, ...]:
    proxies = mesh.ask("list")
    listed = {row["appId"]: row for row in proxies} if isinstance(proxies, list) else {}
    checks = [
        Check(
            title=f"each of the {len(SERVICES)} services has a proxy",
            passed=listed.keys() == SERVICES,
            found=f"found {sorted(listed)}",
        )
    ]
    if "frontend" in listed:
        checks.append(_check_refusal(listed["frontend"]["grpcPort"]))
    if tracer:
        checks.append(_check_zipkin(mesh, tracer, receipt.trace_id))
    return tuple(checks)


def _check_refusal(grpc_port: int) -> Check:
    """What the front end may not do by policy, tried through its own proxy: charge a card."""
    with grpc.insecure_channel(f"localhost:{grpc_port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            shop_pb2_grpc.PaymentServiceStub(channel).Charge(shop_pb2.ChargeRequest(), timeout=CALL_S)
            found = "it was answered"
        except grpc.RpcError as error:
            found = f"{error.code().name}: {error.details()}"
    return Check(
        title="the front end may not charge a card",
        passed=found.startswith(grpc.StatusCode.PERMISSION_DENIED.name),
        found=found,
    )


def _check_dashboard(link: str) -> Check:
    page, _, token = link.partition("#token=")
    asked = urllib.request.Request(f"{page}api/events", headers={"Authorization": f"Bearer {token}"})
    apps: set[str] = set()
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=CALL_S) as events:
        for line in events:
            if line.startswith(b"data: "):
                apps = {row["app"] for row in json.loads(line.removeprefix(b"data: "))["sidecars"]}
                break
    return Check(title="the dashboard shows them all", passed=apps == SERVICES, found=f"found {sorted(apps)}")


def _check_zipkin(mesh: Mesh, tracer: zipkin.Zipkin, trace_id: str) -> Check:
    expected = 2 * sum(CHECKOUT_CALLS.values())
    deadline = Deadline(TRACE_S)
    found = tracer.count_spans(trace_id)
    while found < expected and not deadline.is_past():
        mesh.wait_on("Zipkin did not have the trace", deadline)
        found = tracer.count_spans(trace_id)
    return Check(
        title="Zipkin has the same trace",
        passed=found == expected,
        found=f"it has {found} spans of it, expected {expected}",
    )


def _print_checks(checks: tuple[Check, ...]) -> int:
    print("\nChecks:")
    for check in checks:
        print(f"  ✓ {check.title}" if check.passed else f"  ✗ {check.title}: {check.found}")
    return 0 if all(check.passed for check in checks) else 1


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
