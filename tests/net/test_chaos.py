# SPDX-License-Identifier: MulanPSL-2.0
"""Supervisor and workers are killed at random under load, on a full file system, on a machine without a free CPU.

 namespace S                          steady_client: connections that echo all the time, and a fresh one every 20 ms
redis-server (on both workers)                  |
worker 0   worker 1  <- SIGKILL              kernel
   queue 0 | queue 1 ------- tap ---------------+
supervisor           <- SIGKILL, then `gazelled start`

FULL=1 has 200 rounds of each kind, ten times twenty with other seeds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kit.full_disk import fill, on_a_small_file_system, stopped
from kit.instance import Instance, on_tap
from kit.lab import Kit, Process, full
from kit.redis import PORT, start_redis
from kit.waiting import until

from gazelled.base.process_identity import read_start_time
from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_process import find_workers
from gazelled.pages.worker_page import WorkerPage, WorkerPageState

CLIENT = Path(__file__).with_name("steady_client.py")
CONNECTIONS = 6
BUSY = 60
SERVES_WITHIN = 2.0
QUIET = SERVES_WITHIN if full() else 0.5  # until the next round: a starved program may need all of that time
SEEDS = range(10 if full() else 1)


def supervisor_of(instance: Instance) -> int:
    """Return the supervisor's pid; on a full file system the record still names its predecessor."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and read_start_time(int(entry.name)) is not None:
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"gazelled.lifecycle.background -i {instance.name} " in words:
                    return int(entry.name)
    raise AssertionError("no supervisor")


@dataclass
class Chaos:
    """An instance, what happens to it, and when it should have been well again."""

    instance: Instance
    chance: random.Random
    pid: int  # of the supervisor
    settles_within: float = 10.0
    rounds: list[tuple[str, float, float]] = field(default_factory=list)  # what, from when on it should serve, next

    @property
    def run_dir(self) -> RunDir:
        return RunDir(self.instance.run_dir)

    def workers(self) -> list[tuple[int, int]]:
        """Return queue and pid of every worker process."""
        return sorted((each.queue_id, each.process.pid) for each in find_workers(self.instance.run_dir))

    def kill_workers(self, queues: list[int]) -> None:
        for queue, pid in self.workers():
            if queue in queues:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: read_start_time(pid) is None, "the supervisor to be gone")

    def moment(self) -> None:
        """Let a moment pass that no condition describes: what happens in it is what is tested."""
        end = time.monotonic() + self.chance.uniform(0.0, 0.15)
        until(lambda: time.monotonic() > end, "a moment to pass")

    def round(self) -> None:
        """Kill something, start if need be, and see one worker on each queue."""
        queues = self.chance.choice([[0], [1], [0, 1]])
        what = self.chance.choice(["workers", "supervisor", "workers, then supervisor", "supervisor, then workers"])
        deeds: dict[str, Callable[[], None]] = {
            "workers": lambda: self.kill_workers(queues), "supervisor": self.kill_supervisor
        }  # fmt: skip
        for number, deed in enumerate(what.split(", then ")):
            if number:
                self.moment()
            deeds[deed]()
        if "supervisor" in what:
            self.start()
        well = time.monotonic()
        until(self.settled, f"one worker on each queue after: {what} {queues}", self.settles_within)
        end = max(time.monotonic(), well) + QUIET
        until(lambda: time.monotonic() > end, "a moment of quiet")
        self.rounds.append((f"{what} {queues}", well, time.monotonic()))

    def start(self) -> None:
        command = self.instance.argv("start", "-c", str(self.instance.config))
        done = self.instance.home.try_run(*command, timeout=60 + 3 * self.settles_within)
        assert done.returncode == 0, done.stdout + done.stderr
        self.pid = supervisor_of(self.instance)

    def settled(self) -> bool:
        workers = self.workers()
        return [queue for queue, _ in workers] == [0, 1] and all(self.serves(*worker) for worker in workers)

    def serves(self, queue: int, pid: int) -> bool:
        try:
            page = WorkerPage(self.instance.run_dir / f"worker.{queue}.page")
        except (OSError, ValueError):
            return False
        try:
            return page.pid == pid and page.state is WorkerPageState.RUNNING and self.run_dir.queue_held(queue)
        finally:
            page.close()


def started(instance: Instance, seed: int) -> tuple[Chaos, Process, Process]:
    instance.start()
    chaos = Chaos(instance, random.Random(seed), supervisor_of(instance))
    redis = start_redis(instance)
    client = instance.kit.spawn(
        instance.client, sys.executable, str(CLIENT), instance.address, str(PORT), str(CONNECTIONS)
    )
    client.said("steady", 20)
    return chaos, redis, client


def judge(chaos: Chaos, client: Process) -> None:
    """Compare what the client saw with when it should have been served."""
    assert client.stop() == 0, client.output()
    fresh: list[dict[str, Any]] = json.loads(client.output().splitlines()[-1])["fresh"]
    for what, well, end in chaos.rounds:
        answered = [each["done"] - well for each in fresh if not each["failed"] and well <= each["done"] <= end]
        assert answered, f"no answer at all after: {what}"
        assert min(answered) < SERVES_WITHIN, f"{what}: the first answer after {min(answered):.2f} s"
        late = [
            each for each in fresh if each["failed"] and well + SERVES_WITHIN < each["began"] and each["done"] < end
        ]
        assert late == [], what


def said(chaos: Chaos) -> str:
    return (chaos.instance.run_dir / "supervisor.log").read_text()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_killed_one_worker_serves_each_queue_within_two_seconds(kit: Kit, seed: int) -> None:
    chaos, redis, client = started(on_tap(kit, 2), seed)
    for _ in range(20 if full() else 10):
        chaos.round()
    assert "no heartbeat" not in said(chaos)
    judge(chaos, client)
    assert redis.alive
    redis.stop()
    chaos.instance.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_while_the_run_directory_is_full_at_random_moments(kit: Kit, seed: int) -> None:
    chaos, redis, client = started(on_a_small_file_system(kit, 8 << 10), seed)
    for _ in range(20 if full() else 5):
        if chaos.chance.random() < 0.5:
            # A start that finds nobody alive begins anew, and has removed what filled it.
            with_filler = chaos.instance.run_dir / "filler"
            with_filler.unlink() if with_filler.exists() else fill(chaos.instance)
        chaos.round()
    (chaos.instance.run_dir / "filler").unlink(missing_ok=True)
    judge(chaos, client)
    assert redis.alive
    redis.stop()
    stopped(chaos.instance)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_beside_sixty_busy_processes_and_nobody_is_killed_for_waiting(kit: Kit, seed: int) -> None:
    chaos, redis, client = started(on_tap(kit, 2), seed)
    chaos.settles_within = 60.0
    busy = [kit.spawn(chaos.instance.home, "sh", "-c", "while :; do :; done") for _ in range(BUSY)]
    for _ in range(20 if full() else 3):
        chaos.round()
    for process in busy:
        process.kill_group()
    for sentence in ("killed: no heartbeat", "killed: not ready"):
        assert sentence not in said(chaos)
    assert client.alive
    assert redis.alive
    client.stop()
    redis.stop()
    chaos.instance.stop()
