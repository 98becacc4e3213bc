# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled status` says, from a run directory and worker pages made by hand."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from machines import machine, plain

from gazelled.base.exitcode import ExitCode
from gazelled.base.process_identity import ProcessIdentity
from gazelled.instance.run_dir import RunDir, StateRecord, WorkerRecord
from gazelled.observe.status import read_status
from gazelled.observe.status_view import status_lines
from gazelled.pages import worker_page
from gazelled.planning.plan import Plan
from gazelled.queue_planner import plan

ME = ProcessIdentity.of(os.getpid())
assert ME is not None
GONE = ProcessIdentity(ME.pid, ME.start_time - 1)  # the pid lives, but as another process


@pytest.fixture
def sleeper() -> Iterator[ProcessIdentity]:
    """A process to stand for a worker."""
    process = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    yield identity
    process.kill()
    process.wait()


def instance(tmp_path: Path, supervisor: ProcessIdentity, *workers: WorkerRecord) -> tuple[RunDir, Plan]:
    """Make the run directory of an instance with two workers."""
    run_dir = RunDir(tmp_path / "t")
    run_dir.path.mkdir()
    planned = plan(plain([0, 1], instance="t"), machine())
    run_dir.write("plan.json", planned.to_json())
    run_dir.write("state.json", StateRecord(supervisor, workers).to_json())
    return run_dir, planned


def record(queue_id: int, process: ProcessIdentity | None, state: str = "running", restarts: int = 0) -> WorkerRecord:
    return WorkerRecord(queue_id, state, process, restarts, "killed by SIGKILL" if restarts else "")


def page(run_dir: RunDir, queue_id: int) -> Any:
    raw = worker_page._WorkerPage(magic=worker_page.MAGIC, abi_version=1, size=worker_page.SIZE, state=1, apps_end=16)
    run_dir.worker_page(queue_id).write_bytes(bytes(raw))
    return raw


def test_nothing_there_is_stopped(tmp_path: Path) -> None:
    status = read_status(RunDir(tmp_path / "nowhere"))
    assert (status.state, status.pid, status.exit_code) == ("stopped", None, ExitCode.NOT_RUNNING)
    assert status.to_dict() == {
        "instance": "nowhere", "state": "stopped", "pid": None, "address": None, "workers": (), "applications": (),
        "hidden": False,
        "uplink": None, "sockets": {"accelerated": 0, "kernel": {}},
    }  # fmt: skip
    assert list(status_lines(status)) == ["instance nowhere: stopped; next: gazelled start -i nowhere"]


def test_all_workers_running_is_running(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    assert ME is not None
    run_dir, _ = instance(tmp_path, ME, record(0, sleeper), record(1, sleeper, restarts=2))
    status = read_status(run_dir)
    assert (status.state, status.pid, status.exit_code) == ("running", ME.pid, ExitCode.OK)
    assert [(w.queue_id, w.name, w.role, w.state, w.pid, w.cpu, w.restarts) for w in status.workers] == [
        (0, "gazellelstack00", "both", "running", sleeper.pid, 0, 0),
        (1, "gazellelstack01", "both", "running", sleeper.pid, 1, 2),
    ]


@pytest.mark.parametrize("state", ["starting", "backoff", "fatal"])
def test_a_worker_that_does_not_run_is_degraded(tmp_path: Path, sleeper: ProcessIdentity, state: str) -> None:
    assert ME is not None
    process = sleeper if state == "starting" else None
    run_dir, _ = instance(tmp_path, ME, record(0, sleeper), record(1, process, state, restarts=3))
    status = read_status(run_dir)
    assert (status.state, status.exit_code) == ("degraded", ExitCode.DEGRADED)
    assert status.workers[1].state == state
    assert "gazellelstack01: killed by SIGKILL" in list(status_lines(status))


def test_workers_without_a_supervisor_are_degraded(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    run_dir, _ = instance(tmp_path, GONE, record(0, sleeper), record(1, GONE))
    status = read_status(run_dir)
    assert (status.state, status.pid) == ("degraded", None)
    assert [(worker.state, worker.pid) for worker in status.workers] == [("running", sleeper.pid), ("dead", None)]
    assert "no supervisor, `gazelled start` brings it back" in next(iter(status_lines(status)))


def test_all_dead_is_stopped_whatever_the_files_say(tmp_path: Path) -> None:
    run_dir, _ = instance(tmp_path, GONE, record(0, GONE), record(1, GONE))
    raw = page(run_dir, 0)
    raw.apps[0].pid = os.getpid()
    run_dir.worker_page(0).write_bytes(bytes(raw))
    status = read_status(run_dir)
    assert (status.state, status.applications, status.exit_code) == ("stopped", (), ExitCode.NOT_RUNNING)


def test_sockets_are_counted_over_workers_and_a_listener_once(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    assert ME is not None
    run_dir, _ = instance(tmp_path, ME, record(0, sleeper), record(1, sleeper))
    for queue_id, connections in ((0, 3), (1, 4)):
        raw = page(run_dir, queue_id)
        raw.counters[worker_page.COUNTERS.index("connections")] = connections
        raw.apps[2].pid = os.getpid()
        raw.apps[2].sockets = connections + 1  # the listener is on each worker
        raw.listeners[0].port_owner = 80 << 16 | 0x8000 | 2
        raw.apps[2].kernel[worker_page.KERNEL_REASONS.index("loopback")] = 5 * queue_id
        raw.apps[2].kernel[worker_page.KERNEL_REASONS.index("family")] = queue_id
        run_dir.worker_page(queue_id).write_bytes(bytes(raw))
    status = read_status(run_dir)
    (application,) = status.applications
    assert (application.pid, application.process_index, application.sockets) == (os.getpid(), 0, 8)
    assert application.command
    assert " ".join(psutil.Process().cmdline()).startswith(application.command)
    assert [worker.connections for worker in status.workers] == [3, 4]
    assert status.to_dict()["sockets"] == {"accelerated": 8, "kernel": {"loopback": 5, "family": 1}}
    assert list(status_lines(status))[-1] == (
        "1 applications; sockets: 8 accelerated, 6 on the kernel (family 1, loopback 5)"
    )


def test_a_supervisor_that_has_only_begun_is_degraded(tmp_path: Path) -> None:
    assert ME is not None
    run_dir = RunDir(tmp_path / "t")
    run_dir.path.mkdir()
    run_dir.write_state(StateRecord(ME, ()))
    status = read_status(run_dir)
    assert (status.state, status.pid) == ("degraded", ME.pid)


def test_the_state_of_another_version_is_no_state(tmp_path: Path) -> None:
    run_dir, _ = instance(tmp_path, GONE)
    for text in ("", "{}", '{"supervisor": null, "workers": []}', '{"supervisor": {"pid": 1}, "workers": []}', "[1]"):
        run_dir.write("state.json", text)
        assert run_dir.read_state() is None
        assert read_status(run_dir).state == "stopped"


def test_a_record_is_read_as_it_was_written(sleeper: ProcessIdentity) -> None:
    state = StateRecord(sleeper, (record(0, sleeper), replace(record(1, None), reason='so "so"')))
    assert StateRecord.from_json(state.to_json()) == state


def test_what_others_wrote_cannot_speak_to_the_terminal(tmp_path: Path, sleeper: ProcessIdentity) -> None:
    assert ME is not None
    hostile = "\x1b]0;root\x07\x1b[2J\n\u202egood"
    reason = WorkerRecord(1, "backoff", None, 1, hostile)
    run_dir, _ = instance(tmp_path, ME, record(0, sleeper), reason)
    named = subprocess.Popen(["bash", "-c", 'exec -a "$0" sleep 60', hostile])
    try:
        raw = page(run_dir, 0)
        raw.apps[0].pid = named.pid
        run_dir.worker_page(0).write_bytes(bytes(raw))
        cmdline = Path(f"/proc/{named.pid}/cmdline")
        deadline = time.monotonic() + 10
        while b"good" not in cmdline.read_bytes().split(b"\0")[0]:
            assert time.monotonic() < deadline
        lines = list(status_lines(read_status(run_dir)))
    finally:
        named.kill()
        named.wait()
    assert [line for line in lines if not line.isprintable()] == []
    assert sum(r"\x1b]0;root\x07\x1b[2J\n\u202egood" in line for line in lines) == 2  # the command, and the reason
