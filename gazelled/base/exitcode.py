# SPDX-License-Identifier: MulanPSL-2.0
"""What gazelled's exit status means. The failures are those of sysexits(3): scripts and systemd know them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command."""

    OK = 0
    WARNED = 1  # `check` only: it works, but something costs speed or safety
    DEGRADED = 2  # `status`: some workers do not run; `check`: something keeps gazelled from working
    NOT_RUNNING = 3  # `status` only
    USAGE = 64  # the command line is wrong
    UNAVAILABLE = 69  # the host refused, or a start failed; everything was put back
    PERMISSION = 77
    CONFIG = 78  # the configuration or the plan made from it is wrong; nothing was touched
    NOT_EXECUTABLE = 126  # `run` only, as a shell says it
    NOT_FOUND = 127  # `run` only, as a shell says it
    INTERRUPTED = 130
