# SPDX-License-Identifier: MulanPSL-2.0
"""The supervisor with workers that do as they are told, or do not: no root, no port, real processes."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.waiting import until
from supervised import Supervised

from gazelled.instance.worker_process import WorkerProcess


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Supervised]:
    supervised = Supervised(tmp_path)
    yield supervised
    supervised.clean()


def test_start_and_stop_leave_nothing(it: Supervised) -> None:
    it.until_serving()
    assert {it.worker(0).state, it.worker(1).state} == {"running"}
    assert len(it.left_over()) == 3
    assert it.stop() == 0
    assert it.left_over() == []
    # They are told at once and leave in any order.
    assert sorted(line for line in it.sentences if "stopped" in line) == [
        "gazellelstack00: stopped",
        "gazellelstack01: stopped",
    ]


def test_a_killed_worker_is_back_at_once_and_the_other_is_left_alone(it: Supervised) -> None:
    it.until_serving()
    victim, other = it.pid(0), it.pid(1)
    os.kill(victim, signal.SIGKILL)
    until(lambda: it.worker(0).state == "running" and it.pid(0) != victim, "worker 0 to run again")
    assert (it.worker(0).restarts, it.worker(0).reason) == (1, "killed by SIGKILL")
    assert it.pid(1) == other
    assert "gazellelstack00: restarted: killed by SIGKILL" in it.sentences


def test_a_worker_that_hangs_is_killed_by_the_watchdog(it: Supervised) -> None:
    it.behave(1, "hang")
    it.until_serving()
    it.behave(1, "")
    it.until_said("gazellelstack01: killed: no heartbeat for")
    it.until_said("gazellelstack01: restarted: no heartbeat for")
    until(lambda: it.worker(1).state == "running" and it.worker(1).restarts == 1, "worker 1 to run again")


def test_a_stopped_worker_is_restarted_too(it: Supervised) -> None:
    it.until_serving()
    victim = it.pid(0)
    os.kill(victim, signal.SIGTERM)
    it.until_said("gazellelstack00: restarted: exited with status 0")
    until(lambda: it.worker(0).state == "running", "worker 0 to run again")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("fail port gz0: no such device", "port gz0: no such device (exited with status 69)"),
        ("mute", "not ready within 1 s"),
        ("crash", "killed by SIGKILL"),
    ],
)
def test_a_start_whose_second_worker_fails_leaves_nothing_and_says_why(it: Supervised, how: str, why: str) -> None:
    it.behave(1, how)
    it.start()
    assert it.end() == 69
    cpu = sorted(os.sched_getaffinity(0))[1 % len(os.sched_getaffinity(0))]
    assert it.sentences[-1] == f"error: gazellelstack01 (queue 1, CPU {cpu}): {why}"
    assert f"    fake lstack of queue 1: {how}" in it.sentences  # its last lines
    assert it.left_over() == []


def test_a_worker_under_another_name_is_a_failed_start(it: Supervised) -> None:
    it.behave(0, "misnamed")
    it.start()
    assert it.end() == 69
    assert "comm: expected gazellelstack00, found somebody" in it.sentences[-1]
    assert it.left_over() == []


def test_a_worker_that_cannot_come_back_is_given_up_until_asked_again(it: Supervised) -> None:
    it.until_serving()
    it.behave(0, "fail no memory")
    os.kill(it.pid(0), signal.SIGKILL)
    it.until_said("gazellelstack00: given up after 3 starts in a row that failed: no memory (exited with status 69)")
    until(lambda: it.worker(0).state == "fatal", "the record to say so")
    assert it.worker(1).state == "running"
    it.behave(0, "")
    it.signal(signal.SIGHUP)
    it.until_said("reload asked")
    until(lambda: it.worker(0).state == "running", "worker 0 to run again")


def test_workers_outlive_their_supervisor_and_the_next_one_adopts_them(it: Supervised) -> None:
    it.until_serving()
    before = [it.pid(0), it.pid(1)]
    it.signal(signal.SIGKILL)
    it.end()
    assert len(it.left_over()) == 3
    it.sentences.clear()
    it.until_serving()
    assert it.sentences[0] == f"gazellelstack00: adopted, pid {before[0]}"
    assert [it.pid(0), it.pid(1)] == before
    os.kill(before[0], signal.SIGKILL)  # not its child, and watched all the same
    it.until_said("gazellelstack00: restarted: ended (its status went to the supervisor that made it)")
    until(lambda: it.worker(0).state == "running", "worker 0 to run again")
    assert it.stop() == 0
    assert it.left_over() == []


def test_a_worker_that_died_meanwhile_is_restarted_by_the_adopting_supervisor(it: Supervised) -> None:
    it.until_serving()
    victim, other = it.pid(0), it.pid(1)
    it.signal(signal.SIGKILL)
    it.end()
    os.kill(victim, signal.SIGKILL)
    it.sentences.clear()
    it.until_serving()
    assert "gazellelstack00: restarted: died while no supervisor ran" in it.sentences
    assert (it.worker(0).restarts, it.pid(1)) == (1, other)


def until_spoken(worker: WorkerProcess) -> str:
    """Wait until a worker has said whether it serves."""
    assert worker.ready_fd is not None
    assert select.select([worker.ready_fd], [], [], 10)[0]
    worker.read_message()
    return worker.said


def test_a_queue_has_one_worker_and_a_second_one_says_why_it_ends(it: Supervised) -> None:
    it.until_serving()
    second = it.spawn_unrecorded(0)
    assert until_spoken(second) == "failed: another worker serves it"
    assert second.reap() == "exited with status 69"
    assert it.run_dir.held_queues() == [0, 1]
    assert it.stop() == 0
    assert it.run_dir.held_queues() == []


def test_a_worker_that_its_dead_supervisor_never_wrote_down_is_adopted(it: Supervised) -> None:
    it.until_serving()
    recorded, other = it.pid(0), it.pid(1)
    it.signal(signal.SIGKILL)
    it.end()
    os.kill(recorded, signal.SIGKILL)
    until(lambda: not it.run_dir.queue_held(0), "worker 0 to be gone")
    unrecorded = it.spawn_unrecorded(0)
    assert until_spoken(unrecorded) == "ready"
    it.sentences.clear()
    it.until_serving()
    assert [it.pid(0), it.pid(1)] == [unrecorded.identity.pid, other]
    assert len(it.left_over()) == 3
    assert it.stop() == 0
    assert it.left_over() == []
    unrecorded.reap()


def test_a_supervisor_takes_the_worker_it_finds_on_a_queue_instead_of_making_another(it: Supervised) -> None:
    it.until_serving()
    it.signal(signal.SIGSTOP)
    os.kill(it.pid(0), signal.SIGKILL)
    until(lambda: not it.run_dir.queue_held(0), "worker 0 to be gone")
    unrecorded = it.spawn_unrecorded(0)
    assert until_spoken(unrecorded) == "ready"
    it.signal(signal.SIGCONT)
    it.until_said(f"gazellelstack00: found running, pid {unrecorded.identity.pid}")
    recorded = (unrecorded.identity, "running")
    until(lambda: (it.worker(0).process, it.worker(0).state) == recorded, "worker 0 to be watched")
    os.kill(unrecorded.identity.pid, signal.SIGKILL)
    unrecorded.reap()
    it.until_said("gazellelstack00: ended (its status")
    until(lambda: it.worker(0).state == "running", "worker 0 to run again")
    assert it.stop() == 0


def test_a_worker_that_does_not_drain_is_killed(it: Supervised) -> None:
    it.behave(0, "stubborn")
    it.until_serving()
    assert it.stop() == 0
    assert "gazellelstack00: killed: not drained within 0.5 s" in it.sentences
    assert it.left_over() == []


def test_stop_during_the_start_undoes_it(it: Supervised) -> None:
    it.behave(1, "mute")
    it.start()
    it.until_said("gazellelstack00: ready")
    assert it.stop() == 0
    assert "[ready]" not in it.sentences
    assert it.left_over() == []


def test_an_idle_supervisor_costs_next_to_nothing(it: Supervised) -> None:
    it.until_serving()
    assert it.process is not None
    stat = Path(f"/proc/{it.process.pid}/stat")

    def ticks() -> int:
        fields = stat.read_text().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before, began = ticks(), time.monotonic()
    until(lambda: time.monotonic() - began > 3.0, "three seconds of idleness")
    assert (ticks() - before) / os.sysconf("SC_CLK_TCK") / 3.0 < 0.02


def test_workers_inherit_nothing_of_the_supervisor(it: Supervised) -> None:
    it.until_serving()
    fds = Path(f"/proc/{it.pid(0)}/fd")
    targets = {int(fd.name): str(fd.readlink()) for fd in fds.iterdir()}
    assert targets.pop(0) == "/dev/null"
    assert targets.pop(1) == targets.pop(2) == str(it.run_dir.worker_log(0))
    assert str(targets.popitem()[1]) == str(it.run_dir.path / "worker.0.lock")
    assert targets == {}
    assert os.getsid(it.pid(0)) == it.pid(0)
