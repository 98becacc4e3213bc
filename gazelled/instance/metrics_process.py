# SPDX-License-Identifier: MulanPSL-2.0
"""The supervisor's hold of the process that serves metrics: started, started again after a while, ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

_AGAIN_S, _AGAIN_MAX_S = 1.0, 60.0
_END_S = 2.0


class MetricsProcess:
    """Serves `listen` for an instance, None: nowhere; nothing of the instance waits for it or fails with it."""

    def __init__(self, run_dir: Path, listen: str | None, report: Callable[[str], None]) -> None:
        self._run_dir = run_dir
        self._listen = listen
        self._report = report
        self._process: subprocess.Popen[bytes] | None = None
        self._next = inf  # not before all workers are ready
        self._wait = _AGAIN_S

    def begin(self, now: float) -> None:
        """Start it, and from now on again when it has ended."""
        self._next = now
        self.look(now)

    def look(self, now: float) -> None:
        """Start it if it does not run and it is time to; `now` as of time.monotonic()."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._process = None
            self._next = now + self._wait
            self._report(
                f"metrics: the process at {self._listen} ended with status {status}; again in {self._wait:g} s"
            )
            self._wait = min(2 * self._wait, _AGAIN_MAX_S)
        if self._listen is None or now < self._next:
            return
        path = str(Path(__file__).resolve().parents[2])
        with suppress(OSError):  # out of processes: the next look tries again
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gazelled.metrics.server", str(self._run_dir), self._listen, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))},
            )

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self._listen is not None and self._listen.startswith("unix:"):
            with suppress(OSError):
                os.unlink(self._listen.removeprefix("unix:"))
