# SPDX-License-Identifier: MulanPSL-2.0
"""What workers say, told to systemd's journal as well: each has its own log, which outlives a supervisor that dies.

The supervisor looks once a second, and takes a bounded amount each time: a worker that says much delays nobody.
"""

from __future__ import annotations

import os
import re

from gazelled.base.log_line import to_journal
from gazelled.instance.run_dir import RunDir

_LINE = re.compile(r"\S+Z (\w+): (.*)")
_AT_ONCE = 16 << 10  # bytes of one log


class WorkerJournal:
    """Reads on in the logs of an instance's workers, from their ends as they are now."""

    def __init__(self, run_dir: RunDir, queues: int) -> None:
        self._run_dir = run_dir
        self._at = {queue: self._size(queue) for queue in range(queues)}

    def _size(self, queue: int) -> int:
        try:
            return self._run_dir.worker_log(queue).stat().st_size
        except OSError:
            return 0  # it has not been started yet

    def look(self) -> None:
        """Tell what was said since the last look."""
        for queue, at in self._at.items():
            try:
                with self._run_dir.worker_log(queue).open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    at = at if at <= size else 0  # put aside, or cut: what was kept is told again rather than lost
                    file.seek(at)
                    text = file.read(_AT_ONCE)
            except OSError:
                continue
            whole = text.rfind(b"\n") + 1
            self._at[queue] = at + (whole or (len(text) if len(text) == _AT_ONCE else 0))
            for line in text[:whole].decode(errors="replace").splitlines():
                found = _LINE.fullmatch(line)
                level, said = (found[1], found[2]) if found else ("info", line)
                to_journal(said if level == "info" else f"{level}: {said}", self._run_dir.instance, queue)
