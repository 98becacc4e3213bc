# SPDX-License-Identifier: MulanPSL-2.0
"""The two processes cases run in: `subject` runs cases, `peer` does what it is told.

Called with the role and the descriptors of its pipes; see runner.py.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any

from support import probes

from conformance.ends import Here, Lines, There, decode, encode
from conformance.env import SetupError, T, raise_limits
from conformance.ops import OPS
from conformance.registry import MODES, load
from conformance.trace import Trace


def peer(requests: Lines) -> None:
    """Do what the subject asks for until it is gone."""
    here = Here()
    OPS["forget"] = here.close_all
    while True:
        op, args = requests.get()
        requests.put(0)
        requests.put(encode(here.run(op, *decode(args))))


def subject(runner: Lines, requests: Lines) -> None:
    """Run cases until the runner is gone: a line of the trace is a message, an empty object ends a case."""
    cases, other, here = {**load(), **probes.cases()}, There(requests), Here()

    def hold() -> None:
        runner.put({"hold": True})
        runner.get()

    runner.put({"ready": True})
    while True:
        order = runner.get()
        mode = MODES[order["mode"]]
        trace = Trace({mode.there: "there", mode.here: "here"}, runner.put)
        t = T(mode, trace, here, other, order["port"], hold)
        try:
            cases[order["case"]].function(t)
        except SetupError as error:
            runner.put(f"setup failed: {error}")
        except RuntimeError as error:
            runner.put(f"gave up: {error}")
        except Exception:
            runner.put("exception: " + traceback.format_exc(limit=4))
        t.close()
        runner.put({})


def main(argv: list[str]) -> None:
    """Enter the role named."""
    raise_limits()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    fds = [int(word) for word in argv[1:]]
    for fd in fds:
        os.set_inheritable(fd, False)
    roles: dict[str, Any] = {
        "subject": lambda: subject(Lines(fds[0], fds[1]), Lines(fds[2], fds[3])),
        "peer": lambda: peer(Lines(fds[0], fds[1])),
    }
    try:
        roles[argv[0]]()
    except (EOFError, BrokenPipeError):
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
