# SPDX-License-Identifier: MulanPSL-2.0
"""An instance nobody uses costs next to nothing, whether programs are attached or not.

          namespace S
     redis-server, idle
     | liblstack
stack 10.91.0.2, 2 workers, adaptive idle
     +--- tap, 2 queues --- kernel 10.91.0.1, silent
"""

from __future__ import annotations

import sys
import time

import psutil
import pytest
from kit.instance import Instance, started
from kit.lab import Kit, full
from kit.redis import start_redis
from kit.waiting import until

LIMIT = 0.03  # of one CPU, for all processes of the instance together
SECONDS = 30 if full() else 10


def used(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def share(instance: Instance) -> float:
    """Measure which part of a CPU workers and supervisor use."""
    status = instance.status()
    pids = [status["pid"], *(row["pid"] for row in status["workers"])]
    processes = [psutil.Process(pid) for pid in pids]
    begin, before = time.monotonic(), used(processes)
    until(lambda: time.monotonic() - begin >= SECONDS, "the time over which is measured", SECONDS + 5)
    return (used(processes) - before) / (time.monotonic() - begin)


@pytest.mark.parametrize("with_redis", [False, True], ids=["alone", "with redis"])
def test_an_idle_instance_uses_next_to_no_cpu(kit: Kit, with_redis: bool) -> None:
    instance = started(kit, "tap", 2)
    if with_redis:
        start_redis(instance)
    measured = share(instance)
    assert measured < LIMIT, f"{measured:.1%} of one CPU"


def test_a_program_whose_instance_was_stopped_looks_for_it_less_and_less(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    server = instance.spawn(sys.executable, "-m", "http.server", "--bind", instance.address, "8080")
    ask = ("curl", "-sSf", "--max-time", "2", f"http://{instance.address}:8080/")
    until(lambda: instance.client.try_run(*ask).returncode == 0, "the server to answer")
    instance.stop()
    process = psutil.Process(server.pid)

    def rests() -> bool:
        begin, before = time.monotonic(), process.num_ctx_switches().voluntary
        until(lambda: time.monotonic() - begin >= 1, "a second to pass")
        return process.num_ctx_switches().voluntary - before <= 20  # at first it looks fifty times a second

    until(rests, "the program to look for its workers less often", 20)
    instance.start()
    until(lambda: instance.client.try_run(*ask).returncode == 0, "the server to answer again")
    assert server.alive
