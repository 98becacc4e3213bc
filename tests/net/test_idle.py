# SPDX-License-Identifier: MulanPSL-2.0
"""An instance nobody uses costs next to nothing, whether programs are attached or not.

          namespace S
     redis-server, idle
     | liblstack
stack 10.91.0.2, 2 workers, adaptive idle
     +--- tap, 2 queues --- kernel 10.91.0.1, silent
"""

from __future__ import annotations

import time

import psutil
import pytest

from net.instance import Instance, started
from net.kit import Kit, full, until
from net.redis import start_redis

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
