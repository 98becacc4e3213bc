# SPDX-License-Identifier: MulanPSL-2.0
"""A line of the supervisor's log, as a worker writes its own; with systemd an entry of its journal."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from gazelled.base.printable import printable_lines

_JOURNAL = "/run/systemd/journal/socket"
_PRIORITIES = {"error": 3, "warning": 4, "info": 6}  # of syslog(3)


def split_level(sentence: str) -> tuple[str, str]:
    """Return the level that a sentence begins with, and the rest of it."""
    level, colon, rest = sentence.partition(": ")
    return (level, rest) if colon and level in ("error", "warning") else ("info", sentence)


def line(sentence: str, now: float) -> str:
    """Return a line of a log."""
    level, text = split_level(printable_lines(sentence))
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{at}.{int(now * 1000) % 1000:03d}Z {level}: {text}\n"


class Repeats:
    """Counts a sentence that is said again at once, instead of letting it be written again."""

    def __init__(self) -> None:
        self._last, self._count = "", 0

    def sentences(self, sentence: str) -> list[str]:
        """Return what to write now."""
        if sentence == self._last:
            self._count += 1
            return []
        left, self._last, self._count = self._count, sentence, 0
        return [f"(said {left} more time{'s' * (left > 1)})", sentence] if left else [sentence]


def to_journal(sentence: str, instance: str, queue: int | None = None) -> bool:
    """Write an entry to systemd's journal, with its priority and whose it is; False if there is none."""
    level, text = split_level(sentence)
    fields = {
        "MESSAGE": printable_lines(text).replace("\n", " | "),
        "PRIORITY": str(_PRIORITIES[level]),
        "SYSLOG_IDENTIFIER": "gazelled",
        "GAZELLED_INSTANCE": instance,
        **({"GAZELLED_QUEUE": str(queue)} if queue is not None else {}),
    }
    data = "".join(f"{key}={value}\n" for key, value in fields.items()).encode(errors="replace")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(data, _JOURNAL)
        return True
    return False


def in_journal(instance: str, otherwise: Callable[[str], None]) -> Callable[[str], None]:
    """Return a report that writes to the journal, repeats counted, and to `otherwise` without one."""
    repeats = Repeats()

    def report(sentence: str) -> None:
        for each in repeats.sentences(sentence):
            if not to_journal(each, instance):
                otherwise(each)

    return report


def belongs_to_journal(fd: int) -> bool:
    """Tell whether a descriptor leads to the journal, as systemd says of a service's output."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
