# SPDX-License-Identifier: MulanPSL-2.0
"""Standing in for a program that runs as our child: our parent is to see as little difference as possible."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

_PASSED_ON = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip


def run_to_end(program: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program and return its status as a shell does, 128 + n if signal n ended it; OSError if it cannot run.

    Signals sent to us are passed on; those of the terminal it gets by itself, for it stays in our process group.
    """
    waited = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = subprocess.Popen(
        command,
        executable=program,
        env=environment,
        close_fds=False,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    )
    try:
        while child.poll() is None:
            info = signal.sigwaitinfo(waited)
            if info.si_signo != signal.SIGCHLD and info.si_code <= 0:  # by kill() or sigqueue(), not by the terminal
                child.send_signal(info.si_signo)
    finally:
        # What the terminal sent both of us as it ended is no interruption of ours.
        while signal.sigtimedwait(waited, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
