"""One sidecar as a process: arguments in, exit code out. Parses, then runs the app; nothing else.

Exit codes: 0 clean exit, 1 failure, 2 usage error; under the name daprd, whose users' scripts look for its last words, 1 for that too.
"""

import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from telemetry.standard_files import hold_standard_files

_QUESTIONS = ("help", "version", "build-info", "wait")
_POLICY_FLAGS = ("config", "resources-path", "components-path")


def main(argv: Sequence[str] | None = None, *, program: str = "postern sidecar") -> int:
    """Run a sidecar until it is told to stop; returns the exit code."""
    hold_standard_files()
    words = list(sys.argv[1:] if argv is None else argv)
    question = asked(words)
    try:
        return _serve(words, program) if question is None else _answer(question, words, program)
    except KeyboardInterrupt:  # Ctrl-C before there are handlers
        return 130


def asked(argv: Sequence[str]) -> str | None:
    """The question among the flags (`--version`, `--wait` …) that is answered instead of running, or None."""
    for word in argv:
        name = word.removeprefix("-").removeprefix("-")
        if word.startswith("-") and (name in _QUESTIONS or name == "h"):
            return "help" if name == "h" else name
    return None


def _answer(question: str, argv: list[str], program: str) -> int:
    if question == "help":
        from proxy.settings.flags import help_text  # noqa: PLC0415

        sys.stdout.write(help_text(program))
        return 0
    if question == "wait":
        return _wait([word for word in argv if word.lstrip("-") != "wait"], os.environ, program)
    from proxy.settings.version import build_info, runtime_version  # noqa: PLC0415

    told = runtime_version(as_daprd=program == "daprd") if question == "version" else build_info()
    sys.stdout.write(f"{told}\n")
    return 0


def _wait(argv: list[str], env: Mapping[str, str], program: str) -> int:
    from proxy.api.readiness import WAIT_S, wait_ready  # noqa: PLC0415
    from proxy.errors import ConfigError  # noqa: PLC0415
    from proxy.settings.flags import scan  # noqa: PLC0415
    from proxy.settings.parsing import http_port_of  # noqa: PLC0415

    try:
        port = http_port_of(scan(argv), env)
    except ConfigError as error:
        return _refuse(error.faults, program)
    if wait_ready("localhost", port, WAIT_S):
        return 0
    sys.stderr.write(f"{program}: no ready sidecar on localhost:{port} within {WAIT_S:.0f} s\n")
    return 1


def _refuse(faults: Sequence[str], program: str) -> int:
    lines = "".join(f"  {fault}\n" for fault in faults)
    sys.stderr.write(f"{program}: can't start, {len(faults)} fault{'s' * (len(faults) > 1)}:\n{lines}")
    if program != "daprd":
        return 2
    import socket  # noqa: PLC0415 - only where something failed

    from proxy.control.life_lines import tell_fatal  # noqa: PLC0415 - as above
    from proxy.settings.version import VERSION  # noqa: PLC0415 - as above
    from telemetry.logs import configure  # noqa: PLC0415 - as above

    configure("", socket.gethostname(), version=VERSION)
    tell_fatal(faults)
    return 1


@contextmanager
def _gc_paused() -> Iterator[None]:
    """For imports: what they make stays, and looking through it for garbage time and again is 15 to 20 ms of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()  # once: 0.3 MB of garbage would stay for good
        gc.freeze()
        gc.enable()


def _take_name(program: str) -> None:
    """Be seen as `daprd` where processes are listed: by that name Dapr's own commands find what runs. Linux alone lets us."""
    with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write(program)


def _serve(argv: list[str], program: str) -> int:
    if program == "daprd":
        _take_name(program)
    with _gc_paused():
        from policies.reloading.reader_worker import ReaderWorker  # noqa: PLC0415 - the questions are answered without it

        # A process of its own reads policies, and makes itself ready to while we import the rest.
        child = ReaderWorker() if any(word.lstrip("-").startswith(_POLICY_FLAGS) for word in argv) else None
        from proxy.errors import ConfigError, ProxyError  # noqa: PLC0415
        from proxy.settings.parsing import parse  # noqa: PLC0415

        try:
            settings = parse(argv, os.environ)
        except ConfigError as error:
            if child is not None:
                child.close()
            return _refuse(error.faults, program)
        from policies.reloading.reader_process import Loading  # noqa: PLC0415
        from proxy.control.policy_sources import policy_sources  # noqa: PLC0415

        loading = Loading(policy_sources(settings), child=child)
        _take_descriptors()
        _forbid_dumps(program)
        import asyncio  # noqa: PLC0415

        from nameresolution.errors import NameResolutionError  # noqa: PLC0415
        from proxy.app import run_sidecar  # noqa: PLC0415
        from proxy.control.life_lines import life_lines  # noqa: PLC0415
        from proxy.engine.selection import loop_factory  # noqa: PLC0415
        from sentry.errors import SentryError  # noqa: PLC0415

    try:
        with asyncio.Runner(loop_factory=loop_factory(settings.engine)) as runner:
            return runner.run(run_sidecar(settings, loading))
    except Exception as error:
        from telemetry.failures import causes  # noqa: PLC0415 - only where something failed

        told = causes(error, (ProxyError, NameResolutionError, SentryError))
        if told is None:
            raise
        sys.stderr.writelines(f"{program}: {settings.app_id}: {cause}\n" for cause in told)
        life_lines(settings).failed(tuple(map(str, told)))
        return 1


def _take_descriptors() -> None:
    """As many open files as we may have: each connection is one, and 1,024, the usual soft limit, is for programs that use select()."""
    import resource  # noqa: PLC0415

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system that allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _forbid_dumps(program: str) -> None:
    """Before the first private key is made. What this process starts later holds none, or is a sentry, which wants the same."""
    from sentry.undumpable import forbid_dumps  # noqa: PLC0415

    try:
        forbid_dumps()
    except OSError as error:
        sys.stderr.write(
            f"{program}: warning: other processes of this user may read this one's memory, private keys included: {error}\n"
        )


def _program(words: Sequence[str]) -> str:
    """Under which name this was started: the script `daprd` says so in its first word or two."""
    is_daprd = list(words[:1]) == ["--profile=daprd"] or list(words[:2]) == ["--profile", "daprd"]
    return "daprd" if is_daprd else "postern sidecar"


if __name__ == "__main__":
    sys.exit(main(program=_program(sys.argv[1:])))
