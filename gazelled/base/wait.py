# SPDX-License-Identifier: MulanPSL-2.0
"""Waiting with a deadline: for a condition, and for a lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gazelled.base.errors import GazelledError

_LOCK_WAIT_S = 60.0
_LOOK_EVERY_S = 0.02


@contextmanager
def locked(directory: Path, *, for_commands: bool = False) -> Iterator[None]:
    """Hold the lock of an existing directory, waiting for another holder up to a minute.

    With `for_commands` the commands run meanwhile hold it too: if we are killed, the next process waits until the
    orphaned command is done with the device.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wait_for(lambda: _try_lock(fd), _LOCK_WAIT_S, f"{directory}: another gazelled is changing it")
        os.set_inheritable(fd, for_commands)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until a condition holds; after so many seconds raise GazelledError(otherwise)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise GazelledError(f"{otherwise} (waited {seconds:g} s)")
        time.sleep(_LOOK_EVERY_S)
