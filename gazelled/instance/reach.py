# SPDX-License-Identifier: MulanPSL-2.0
"""Whether a worker is there, asked of the worker: what a pid says is only true in the PID namespace it is of."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from gazelled.instance.run_dir import RunDir

HIDDEN = 0  # the kernel's name for a process of another PID namespace


def listener(path: Path) -> int | None:
    """Return the pid of the worker that listens on a socket, HIDDEN if we cannot see it; None if no process listens.

    A socket we may not connect to says nothing: None.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as asker:
        try:
            asker.connect(str(path))
        except BlockingIOError:
            return HIDDEN  # it listens, its backlog is full, and its pid stays unknown
        except OSError:
            return None
        credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", credentials)[0])


def answering(run_dir: RunDir) -> dict[int, int]:
    """Return the workers of an instance that answer: queue, and pid as `listener` has it."""
    found = {}
    for path in run_dir.path.glob("worker.*.sock"):
        pid = listener(path)
        if pid is not None:
            found[int(path.name.split(".")[1])] = pid
    return found
