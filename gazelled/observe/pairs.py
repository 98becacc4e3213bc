# SPDX-License-Identifier: MulanPSL-2.0
"""Which pairs of programs of this host talk without packets: found by the memory they share, which no worker keeps.

A process's memory is opened by its descriptors in /proc, so everybody finds those of his own programs, and root all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gazelled.pages import pair_memory

_NAME = "/memfd:gazelle-pair"


def _mapped(proc: Path) -> set[int]:
    """Return the inodes of pair memory that a process has mapped; empty if it cannot be seen or there is none."""
    try:
        lines = (proc / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {int(fields[4]) for line in lines if _NAME in line and len(fields := line.split()) > 5}


def _open(proc: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield inode and header of pair memory that a process has open."""
    try:
        names = os.listdir(proc / "fd")
    except OSError:
        return
    for name in names:
        path = proc / "fd" / name
        try:
            if not os.readlink(path).startswith(_NAME):
                continue
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has closed it, or may not be asked
        try:
            inode = os.fstat(fd).st_ino
            if inode in wanted:
                yield inode, os.pread(fd, pair_memory.HEADER, 0)
        finally:
            os.close(fd)


def pairs(pids: Iterable[int], proc_root: Path = Path("/proc")) -> Iterator[tuple[bytes, set[int]]]:
    """Yield the memory of each pair that these processes are of, and which of them are."""
    members: dict[int, set[int]] = {}
    for pid in pids:
        for inode in _mapped(proc_root / str(pid)):
            members.setdefault(inode, set()).add(pid)
    missing = set(members)
    for pid in sorted({pid for each in members.values() for pid in each}):
        if not missing:
            return
        for inode, memory in _open(proc_root / str(pid), missing):
            if inode in missing and pair_memory.is_pair(memory):
                missing.discard(inode)
                yield memory, members[inode]
