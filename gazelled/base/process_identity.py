# SPDX-License-Identifier: MulanPSL-2.0
"""Which process: a pid alone may be another one tomorrow; pid and start time together never are."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROC = Path("/proc")


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s stat from the state on."""
    stat = (PROC / str(pid) / "stat").read_bytes()
    return stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything, spaces and brackets too


def read_cpu_seconds(pid: int) -> float | None:
    """Return the CPU time a process has used; None if it is gone."""
    try:
        fields = _stat_fields(pid)
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or only waits to be reaped."""
    try:
        fields = _stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of this boot."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the identity of a running process, None if there is none with this pid."""
        start_time = read_start_time(pid)
        return None if start_time is None else cls(pid, start_time)

    @property
    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return read_start_time(self.pid) == self.start_time

    def open(self) -> int | None:
        """Return a pidfd of this very process, None if it is gone. The caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:  # checked after opening: from now on the pidfd cannot mean another process
            return fd
        os.close(fd)
        return None


def end_processes(processes: Sequence[ProcessIdentity], grace: float) -> list[ProcessIdentity]:
    """Send SIGTERM to all, after `grace` seconds SIGKILL; return those that are still there after that.

    Works on processes that are not our children.
    """
    left = {fd: process for process in processes if (fd := process.open()) is not None}
    try:
        for signal_number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for fd in left:
                try:
                    signal.pidfd_send_signal(fd, signal_number)
                except ProcessLookupError:
                    continue  # it ends just now, and the wait below sees that
            _wait_for_ends(left, seconds)
        return list(left.values())
    finally:
        for fd in left:
            os.close(fd)


def _wait_for_ends(left: dict[int, ProcessIdentity], seconds: float) -> None:
    """Wait until every pidfd of `left` is readable, or the time is over; take out and close those that are."""
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        poller = select.poll()
        for fd in left:
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll(remaining * 1000):
            del left[fd]
            os.close(fd)
