# SPDX-License-Identifier: MulanPSL-2.0
"""A queue has one worker, whoever makes workers, and whoever is killed between making one and writing it down.

 namespace S
kernel --- gz-NAME (tap) --- workers 0, 1
"""

from __future__ import annotations

import os
import signal

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit, Process
from kit.waiting import until

from gazelled.base.native_build import worker_program
from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_process import find_workers


def workers(instance: Instance) -> list[tuple[int, int]]:
    """Return queue and pid of every worker process there is."""
    return sorted((each.queue_id, each.process.pid) for each in find_workers(instance.run_dir))


def unrecorded(instance: Instance, queue_id: int) -> Process:
    """Start a worker as a supervisor does that dies before it has written it down."""
    name, page = f"gazellelstack{queue_id:02}", str(instance.run_dir / "group.0")
    start = ("bash", "-c", 'exec -a "$0" "$@"', name, str(worker_program()))
    return instance.kit.spawn(instance.home, *start, "--group", page, "--queue", str(queue_id))


@pytest.fixture
def orphaned(kit: Kit) -> Instance:
    """Return an instance whose worker 1 and supervisor were killed."""
    instance = on_tap(kit, 2)
    instance.start()
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    os.kill(dict(workers(instance))[1], signal.SIGKILL)
    until(lambda: RunDir(instance.run_dir).held_queues() == [0], "worker 1 to be gone")
    return instance


def test_the_next_start_adopts_the_worker_that_nobody_wrote_down(orphaned: Instance) -> None:
    first = workers(orphaned)
    worker = unrecorded(orphaned, 1)
    worker.said("gazellelstack01 ready")
    orphaned.start()
    assert workers(orphaned) == [*first, (1, worker.pid)]
    assert orphaned.status()["state"] == "running"
    assert orphaned.worker(1)["pid"] == worker.pid
    orphaned.home.run("ping", "-c", "1", "-W", "2", orphaned.address)
    orphaned.stop()


def test_a_second_worker_of_a_queue_ends_before_it_touches_anything(orphaned: Instance) -> None:
    orphaned.start()
    before = workers(orphaned)
    second = unrecorded(orphaned, 0)
    assert second.wait(10) == 69
    assert "queue 0: another worker serves it" in second.output()
    assert workers(orphaned) == before
    orphaned.home.run("ping", "-c", "1", "-W", "2", orphaned.address)
    orphaned.stop()
