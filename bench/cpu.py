# SPDX-License-Identifier: MulanPSL-2.0
"""CPU time of processes that go on living, and of those that ended meanwhile: what a load has cost on all sides of it.

The kernel's own work for a packet is charged to whichever process it interrupts, or to ksoftirqd: the ksoftirqd threads
are part of every figure, on the kernel's side as on ours.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int, proc: Path = _PROC) -> float:
    """Return the CPU seconds of a process, all its threads; 0 for one that is gone.

    schedstat counts nanoseconds, stat only ticks of 10 ms: stat is for kernels without the other. A thread that ended
    is missing in the first and is taken from the second, so the larger counts.
    """
    try:
        words = (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        ticks = (int(words[11]) + int(words[12])) * _TICK_S
    except (OSError, IndexError):
        return 0.0
    exact = 0.0
    try:
        for task in (proc / str(pid) / "task").iterdir():
            exact += int((task / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return ticks
    return exact if exact + 2 * _TICK_S > ticks else ticks


def children_of(pid: int, proc: Path = _PROC) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    try:
        for task in (proc / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += children_of(int(child), proc)
    except OSError:
        pass  # it ended while we looked
    return found


def softirq_threads(proc: Path = _PROC) -> list[int]:
    """Return the pids of the ksoftirqd threads."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().startswith("ksoftirqd/"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


class CpuMeter:
    """Measures from its making to `seconds()`: the given processes, and every child this process reaped meanwhile."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._before = {pid: process_seconds(pid) for pid in pids}
        self._reaped = _reaped_seconds()

    def seconds(self) -> float:
        """Return the CPU seconds since it was made."""
        living = sum(max(0.0, process_seconds(pid) - before) for pid, before in self._before.items())
        return living + _reaped_seconds() - self._reaped


def _reaped_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine_busy_seconds(proc: Path = _PROC) -> float:
    """Return the CPU seconds all CPUs together have not been idle since boot; only differences mean anything."""
    words = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(word) for number, word in enumerate(words) if number not in (3, 4)) * _TICK_S


def busy_share(seconds: float) -> float:
    """Return how busy the machine is over so many seconds, 0 to 1; it is asked before anything is started."""

    def look() -> tuple[float, float]:
        words = [int(word) for word in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(words) - words[3] - words[4], sum(words)

    before = look()
    time.sleep(seconds)
    after = look()
    return (after[0] - before[0]) / max(1.0, after[1] - before[1])
