# SPDX-License-Identifier: MulanPSL-2.0
"""What workers hold, for tests of what must not stay."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from kit.instance import Instance
from kit.waiting import until

GAUGES = ("connections", "sockets", "attachments")
MEMORY_SLACK = 2 << 20  # bytes: a worker's caches may grow by this over a thousand programs, which is 2 KB for each


@dataclass(frozen=True)
class Holdings:
    """What one worker holds."""

    gauges: dict[str, int]
    programs: int
    arenas: int  # KiB of the programs' FIFOs
    files: int
    mbufs_free: int
    memory: int


def holdings(instance: Instance, queue_id: int) -> Holdings:
    """Return what the worker of a queue holds now."""
    page = instance.page(queue_id)
    counters, apps = page.counters(), list(page.apps())
    process = psutil.Process(page.pid)
    return Holdings(
        gauges={name: counters[name] for name in GAUGES},
        programs=len(apps),
        arenas=sum(app.arena_kb for app in apps),
        files=process.num_fds(),
        mbufs_free=counters["mbufs_free"],
        memory=process.memory_info().rss,
    )


def settled(instance: Instance) -> list[Holdings]:
    """Return what each worker holds once its gauges are written and what waited for its time has ended."""
    queues = [row["queue_id"] for row in instance.status()["workers"]]
    # Some gauges are written once a second, also by an idle worker.
    rested = time.monotonic()
    pages = [instance.page(queue_id) for queue_id in queues]
    until(lambda: all(page.heartbeat > rested + 1.5 for page in pages), "the workers to write their gauges")
    return [holdings(instance, queue_id) for queue_id in queues]


def assert_nothing_lost(before: list[Holdings], after: list[Holdings], slack: int = MEMORY_SLACK) -> None:
    """Assert that what they hold has not grown."""
    for queue_id, (then, now) in enumerate(zip(before, after, strict=True)):
        assert (now.gauges, now.programs) == (then.gauges, then.programs), f"worker {queue_id}: {then} {now}"
        assert now.arenas <= then.arenas, f"worker {queue_id}: {then} {now}"
        assert now.files == then.files, f"worker {queue_id}: {then} {now}"
        assert now.mbufs_free >= then.mbufs_free, f"worker {queue_id}: {then} {now}"
        assert now.memory <= then.memory + slack, f"worker {queue_id}: {then} {now}"
