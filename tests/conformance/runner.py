# SPDX-License-Identifier: MulanPSL-2.0
"""Runs one case in one place and returns what it observed, whatever becomes of the processes it runs in.

A rig is two processes that stay for many cases: subject and peer (casehost.py). A case that hangs or kills them is
told in its trace, and the next one gets new processes.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

START_S = 30.0
# A run of a case never meets what an earlier one left in TIME-WAIT. Below the ephemeral ports, 8 ports each.
_ports = itertools.cycle(range(10000, 32000, 8))

Wrap = Callable[[list[str]], list[str]]


@dataclass
class Rig:
    """Two processes, started when first needed. `subject` and `peer` make the command lines of their places."""

    name: str
    subject: Wrap
    peer: Wrap
    log: Path
    case_s: float = 6.0
    restarts: int = -1
    on_hold: Callable[[], None] = lambda: None  # called while a case holds what it has made
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _orders: int = -1
    _lines: int = -1
    _rest: bytes = b""

    def run(self, case: str, mode: str) -> list[str]:
        """Run a case; return its trace."""
        if not self._processes:
            self._start()
        os.write(self._orders, json.dumps({"case": case, "mode": mode, "port": next(_ports)}).encode() + b"\n")
        trace: list[str] = []
        deadline = time.monotonic() + self.case_s
        while (line := self._line(deadline)) is not None:
            if line == {"hold": True}:
                self.on_hold()
                os.write(self._orders, b"{}\n")
            elif isinstance(line, str):
                trace.append(line)
            else:
                return trace
        trace.append(self._end_of_rig())
        return trace

    def _line(self, deadline: float) -> object:
        """Return the next message; None when the subject is gone or too late."""
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._lines], [], [], left)[0]:
                return None
            more = os.read(self._lines, 1 << 16)
            if not more:
                return None
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        message: object = json.loads(line)
        return message

    def _end_of_rig(self) -> str:
        subject, peer = self._processes
        ends: list[str] = []
        for name, process in (("subject", subject), ("peer", peer)):
            try:
                status = process.wait(timeout=0.5 if not ends else 0.1)
                ends.append(f"{name} ended with {signal.Signals(-status).name if status < 0 else status}")
            except subprocess.TimeoutExpired:
                ends.append(f"{name} hung")
        self.stop()
        return "the case did not come to its end: " + ", ".join(ends)

    def _start(self) -> None:
        self.restarts += 1
        (order_r, order_w), (line_r, line_w), (ask_r, ask_w), (tell_r, tell_w) = (os.pipe() for _ in range(4))
        for wrap, role, fds in (
            (self.subject, "subject", (order_r, line_w, tell_r, ask_w)),
            (self.peer, "peer", (ask_r, tell_w)),
        ):
            argv = wrap([sys.executable, "-m", "conformance.casehost", role, *map(str, fds)])
            with self.log.open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        argv,
                        pass_fds=fds,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # the children of a case that went wrong end with it
                        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONFAULTHANDLER": "1"},
                    )
                )
        for fd in (order_r, line_w, ask_r, ask_w, tell_r, tell_w):
            os.close(fd)
        self._orders, self._lines, self._rest = order_w, line_r, b""
        if self._line(time.monotonic() + START_S) != {"ready": True}:
            why = self._end_of_rig()
            raise RuntimeError(f"{self.name}: {why}\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End both processes."""
        if not self._processes:
            return
        os.close(self._orders)
        os.close(self._lines)
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
        self._processes.clear()
