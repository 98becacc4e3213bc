# SPDX-License-Identifier: MulanPSL-2.0
"""The one way gazelled runs another program: a deadline, a C locale, and an error that shows the command as typed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from gazelled.base.errors import GazelledError

_SYSTEM_PATH = "/usr/sbin:/sbin"  # where ip and modprobe live, and often not on an ordinary user's PATH


def find(program: str) -> str | None:
    """Return the path of a program on PATH or in the system directories, None if there is none."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")


def run(argv: Sequence[str], *, timeout: float = 30.0, hint: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output; `timeout` is in seconds.

    Raises GazelledError when the program is absent, ends with another status than 0, or is not done in time (it is then
    killed). Only descriptors made inheritable on purpose reach the command: a lock among them stays held for as long as
    the command is at work, even if we are killed meanwhile.
    """
    shown = shlex.join(argv)
    path = find(argv[0])
    if path is None:
        raise GazelledError(f"{argv[0]}: no such program on PATH (wanted for `{shown}`)", hint=hint)
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            close_fds=False,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise GazelledError(f"`{shown}` did not end within {timeout:g} s", hint=hint) from error
    except OSError as error:
        raise GazelledError(f"`{shown}`: {error.strerror}", hint=hint) from error
    if done.returncode != 0:
        how = (
            f"ended with status {done.returncode}"
            if done.returncode > 0
            else f"was killed by signal {-done.returncode}"
        )
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise GazelledError(f"`{shown}` {how}" + (f": {said[-1]}" if said else ""), hint=hint)
    return done
