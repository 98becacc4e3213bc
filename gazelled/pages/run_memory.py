# SPDX-License-Identifier: MulanPSL-2.0
"""What an instance's run directory takes of its file system; native/lstack/core/run_memory.h has the same sums.

Workers reserve it as they start, before they use it. The sum is there to say so before anything of the host is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.sizes import iec
from gazelled.pages import group_page, worker_page

_RINGS_HEADER_BYTES = 4096
_RING_HEADER_BYTES = 128
_RING_BYTES_MAX, _RING_BYTES_MIN = 1 << 20, 1 << 17
_RINGS_OF_A_WORKER_BYTES = 4 << 20
FLOWS_BYTES = 4096 * 44  # of the record of connections, as it begins

_TEXT_BYTES = 64 << 10  # plan, journal, record, first lines of the supervisor's log
_TEXT_OF_A_WORKER_BYTES = 16 << 10


def rings_bytes(workers: int) -> int:
    """Return the size of the packet rings between so many workers."""
    ring = _RING_BYTES_MAX
    while ring > _RING_BYTES_MIN and ring * (workers - 1) > _RINGS_OF_A_WORKER_BYTES:
        ring //= 2
    return _RINGS_HEADER_BYTES + workers * (workers - 1) * (_RING_HEADER_BYTES + ring)


def run_dir_bytes(workers: int, groups: int) -> int:
    """Return what the run directory of an instance takes as it starts."""
    of_a_worker = _whole_pages(worker_page.SIZE) + _whole_pages(FLOWS_BYTES) + _TEXT_OF_A_WORKER_BYTES
    return rings_bytes(workers) + workers * of_a_worker + groups * _whole_pages(group_page.SIZE) + _TEXT_BYTES


def _whole_pages(size: int) -> int:
    return -(-size // 4096) * 4096


def check_room(path: Path, workers: int, groups: int) -> None:
    """Raise GazelledError if the file system of an existing run directory has no room for an instance."""
    need, found = run_dir_bytes(workers, groups), os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if free < need:
        raise GazelledError(
            f"{path}: {workers} worker{'s need' if workers > 1 else ' needs'} {iec(need)} there; {iec(free)} are free",
            hint="free some, or enlarge that file system (a tmpfs: `mount -o remount,size=...`), "
            "or have $GAZELLED_RUN_ROOT name another place; nothing was changed",
        )
