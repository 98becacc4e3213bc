# SPDX-License-Identifier: MulanPSL-2.0
"""The worker page: what a worker shows of itself, as `struct gz_worker_page` of native/include/gazelle/worker_page.h.

The worker writes it all the time, we only read. A page is never truncated and survives the worker, so that a mapping
stays good over restarts. `lstack --abi` prints the C side's layout and names, and a test compares.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gazelled.pages import counters

MAGIC = 0x656761707265777A
ABI_VERSION = 1
LISTENERS_MAX = 1024
APPS_MAX = 4096
COUNTERS_SIZE = 64
KERNEL_REASONS_SIZE = 16

COUNTERS = tuple(counter.name for counter in counters.COUNTERS)
# By position; the list grows at the end only.
KERNEL_REASONS = ("family", "address", "loopback", "no_route", "not_attached", "no_resource", "client", "option")

# enum gz_stage: where the time of a traced request goes, by position
STAGES = (
    "rx_to_stack", "stack_to_fifo", "fifo_to_read", "read_to_write", "write_to_stack", "stack_to_tx", "total",
)  # fmt: skip
HISTOGRAM_BUCKETS = 464


class WorkerPageState(IntEnum):
    """enum gz_worker_state: what the worker says of itself."""

    STARTING = 0
    RUNNING = 1
    DRAINING = 2
    GONE = 3


class _Listener(ctypes.Structure):
    _fields_ = [
        ("port_owner", ctypes.c_uint32),
        ("v6only", ctypes.c_uint32),
        ("addr", ctypes.c_uint8 * 16),
        ("backlog", ctypes.c_uint32),
        ("program", ctypes.c_uint32),
        ("netns", ctypes.c_uint64),
    ]


class _AppStat(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint32),
        ("sockets", ctypes.c_uint32),
        ("arena_kb", ctypes.c_uint32),
        ("paired", ctypes.c_uint32),
        ("kernel", ctypes.c_uint32 * KERNEL_REASONS_SIZE),
    ]


class _Histogram(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_uint64),
        ("max_ns", ctypes.c_uint64),
        ("bucket", ctypes.c_uint32 * HISTOGRAM_BUCKETS),
    ]


class _WorkerPage(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint64),
        ("abi_version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("heartbeat_ns", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("mac", ctypes.c_uint8 * 6),
        ("pad0", ctypes.c_uint8 * 10),
        ("_line0", ctypes.c_uint8 * 8),
        ("asleep", ctypes.c_uint32),
        ("apps_end", ctypes.c_uint32),
        ("_line1", ctypes.c_uint8 * 56),
        ("counters", ctypes.c_uint64 * COUNTERS_SIZE),
        ("listeners", _Listener * LISTENERS_MAX),
        ("apps", _AppStat * APPS_MAX),
        ("latency", _Histogram * len(STAGES)),
        ("_line2", ctypes.c_uint8 * 16),
    ]


SIZE = ctypes.sizeof(_WorkerPage)


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return size and field offsets of each structure, to be compared with `lstack --abi`."""
    return {
        name: (ctypes.sizeof(cls), {row[0]: getattr(cls, row[0]).offset for row in cls._fields_ if row[0][0] != "_"})
        for name, cls in (
            ("gz_listener", _Listener),
            ("gz_app_stat", _AppStat),
            ("gz_histogram", _Histogram),
            ("gz_worker_page", _WorkerPage),
        )
    }


@dataclass(frozen=True)
class AppStat:
    """One attached process as one worker sees it."""

    pid: int
    sockets: int  # accelerated, held on this worker
    paired: int  # its connections with programs of this host, as it says itself; no worker has them
    listeners: int  # of `sockets`; a program listens on every worker of its group
    arena_kb: int
    kernel: dict[str, int]  # its sockets on the kernel path by reason, those with none left out


class WorkerPage:
    """A read-only mapping of one worker's page."""

    def __init__(self, path: Path) -> None:
        """Map the page; FileNotFoundError if no worker has made it, ValueError if it is not one of this version."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < SIZE:
                raise ValueError(f"{path}: not a worker page: too short")
            self._map = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        page = self._copy()
        if (page.magic, page.abi_version, page.size) != (MAGIC, ABI_VERSION, SIZE):
            raise ValueError(
                f"{path}: not a worker page of ABI version {ABI_VERSION} (found version {page.abi_version})"
            )

    def _copy(self) -> _WorkerPage:
        return _WorkerPage.from_buffer_copy(self._map)

    def _word(self, field: str, size: int) -> int:
        offset = getattr(_WorkerPage, field).offset
        return int.from_bytes(self._map[offset : offset + size], "little")

    @property
    def heartbeat(self) -> float:
        """Return when the worker last beat, in seconds of time.monotonic()."""
        return self._word("heartbeat_ns", 8) / 1e9

    @property
    def pid(self) -> int:
        """Return the process that wrote the page last."""
        return self._word("pid", 4)

    @property
    def state(self) -> WorkerPageState:
        """Return what the worker says of itself; a dead one says nothing new."""
        return WorkerPageState(self._word("state", 4))

    def counters(self) -> dict[str, int]:
        """Return every counter by name."""
        # Only these: the page is large for the places of thousands of programs.
        values = (ctypes.c_uint64 * COUNTERS_SIZE).from_buffer_copy(self._map, _WorkerPage.counters.offset)
        return dict(zip(COUNTERS, values, strict=False))

    def apps(self) -> Iterator[AppStat]:
        """Return the attached processes."""
        page = self._copy()
        listeners = [0] * APPS_MAX
        for listener in page.listeners:
            slot = listener.port_owner & 0x7FFF  # the bit above keeps an entry in use from being 0
            if listener.port_owner and slot < APPS_MAX:
                listeners[slot] += 1
        for slot, app in enumerate(page.apps[: page.apps_end]):
            if app.pid:
                kernel = {name: count for name, count in zip(KERNEL_REASONS, app.kernel, strict=False) if count}
                yield AppStat(app.pid, app.sockets, app.paired, min(listeners[slot], app.sockets), app.arena_kb, kernel)

    def latency(self) -> dict[str, tuple[int, int, list[int]]]:
        """Return count, longest (ns) and bucket counts of each stage, since tracing was last switched on."""
        found = zip(STAGES, self._copy().latency, strict=True)
        return {stage: (each.count, each.max_ns, list(each.bucket)) for stage, each in found}

    def close(self) -> None:
        """Unmap."""
        self._map.close()
