"""Policies read in a process of their own say what reading them here says."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.errors import DocumentError, UnreadError
from policies.reloading.loading import PolicySources, load
from policies.reloading.reader_process import Loading, ReaderProcess

POLICY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  tracing: {samplingRate: "0.5"}
  accessControl:
    defaultAction: deny
    policies:
      - appId: web
        trustDomain: public
        namespace: default
        defaultAction: deny
        operations: [{name: /a/**, httpVerb: [GET], action: allow}, {name: /a/b*, httpVerb: ["*"], action: deny}]
"""


def _rule(n: int) -> str:
    return f"      - {{appId: web{n}, trustDomain: public, namespace: default, defaultAction: deny}}\n"


def _sources(tmp_path: Path, text: str | None) -> PolicySources:
    paths: tuple[Path, ...] = ()
    if text is not None:
        paths = (tmp_path / "policy.yaml",)
        paths[0].write_text(text)
    return PolicySources(
        config_paths=paths, own_app_id="cart", own_namespace="default", own_trust_domain="public"
    )


@pytest.fixture
def reader() -> Iterator[ReaderProcess]:
    reader = ReaderProcess()
    yield reader
    reader.close()


def _read(reader: ReaderProcess, sources: PolicySources) -> int:
    """The process that read them."""
    reader(sources)
    assert reader.pid is not None
    return reader.pid


def _is_running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_snapshot_crosses_whole(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, POLICY)
    assert Loading(sources).finish() == load(sources)
    assert reader(sources, generation=3) == load(sources, generation=3)


def test_every_fault_crosses_with_its_place(tmp_path: Path) -> None:
    sources = _sources(tmp_path, POLICY.replace("defaultAction: deny", "defaultAction: dany"))
    with pytest.raises(DocumentError) as here:
        load(sources)
    with pytest.raises(DocumentError) as apart:
        Loading(sources).finish()
    assert apart.value.faults == here.value.faults
    assert len(apart.value.faults) == 2


def test_one_child_reads_edits_in_a_row_good_and_bad(tmp_path: Path, reader: ReaderProcess) -> None:
    good = _sources(tmp_path, POLICY)
    child = _read(reader, good)
    bad = _sources(tmp_path, POLICY.replace("defaultAction: deny", "defaultAction: dany"))
    with pytest.raises(DocumentError):
        reader(bad, generation=3)
    long = _sources(tmp_path, POLICY + "".join(_rule(n) for n in range(3_000)))  # more than a pipe holds
    assert reader(long, generation=4) == load(long, generation=4)
    assert reader.pid == child


def test_child_ends_once_it_has_not_been_asked_for_a_while(tmp_path: Path) -> None:
    reader = ReaderProcess(kept_s=0.0)
    child = _read(reader, _sources(tmp_path, POLICY))
    assert _is_running(child)
    reader.rest()
    assert reader.pid is None
    assert not _is_running(child)


def test_child_stays_while_edits_may_follow(tmp_path: Path, reader: ReaderProcess) -> None:
    child = _read(reader, _sources(tmp_path, POLICY))
    reader.rest()
    assert reader.pid == child


def test_child_that_was_killed_at_rest_is_replaced(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, POLICY)
    child = _read(reader, sources)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert reader(sources, generation=2) == load(sources, generation=2)
    assert reader.pid != child


def test_child_that_is_killed_at_work_leaves_policies_unread(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, POLICY)
    child = _read(reader, sources)
    os.kill(child, signal.SIGSTOP)
    end = threading.Timer(0.2, os.kill, (child, signal.SIGKILL))
    end.start()
    with pytest.raises(
        UnreadError, match=r"policy.yaml.*could not be read: the reader process ended with -9"
    ):
        reader(sources, generation=2)
    assert reader(sources, generation=2) == load(sources, generation=2)


def test_close_ends_a_load_under_way(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, POLICY)
    child = _read(reader, sources)
    os.kill(child, signal.SIGSTOP)
    end = threading.Timer(0.2, reader.close)
    end.start()
    with pytest.raises(UnreadError):
        reader(sources, generation=2)
    end.join()
    assert reader.pid is None


def test_child_leaves_ctrl_c_to_the_sidecar(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, POLICY)
    child = _read(reader, sources)
    os.kill(child, signal.SIGINT)
    assert _read(reader, sources) == child


def test_reloads_are_nicer_than_we_are(tmp_path: Path, reader: ReaderProcess) -> None:
    child = _read(reader, _sources(tmp_path, POLICY))
    ranks = [os.getpriority(os.PRIO_PROCESS, process) for process in (0, child)]
    assert ranks[1] == min(ranks[0] + 10, 19)


def test_without_files_nothing_is_started(tmp_path: Path, reader: ReaderProcess) -> None:
    sources = _sources(tmp_path, None)
    assert reader(sources) == Loading(sources).finish() == load(sources)
    assert reader.pid is None
