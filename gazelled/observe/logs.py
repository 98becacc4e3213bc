# SPDX-License-Identifier: MulanPSL-2.0
"""The logs of an instance, supervisor and workers together, in the order of time.

A line of a log is "2026-01-31T12:00:00.000Z level: text". What has no such beginning belongs to the line before it.
"""

from __future__ import annotations

import heapq
import os
import re
import select
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable
from gazelled.instance.run_dir import RunDir

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\w+): (.*)")
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LOOK_S = 0.3  # between two looks for new lines


@dataclass(frozen=True, order=True)
class Entry:
    """One line. Times of one clock in one notation sort as text."""

    time: str
    who: str
    level: str
    text: str

    def __str__(self) -> str:
        """Return it as it is shown."""
        return f"{self.time} {self.level:<8}{self.who}: {self.text}"


def since(text: str, now: datetime | None = None) -> str:
    """Return the time that a person means by "5m", "2h" or "2026-01-31 12:00"; GazelledError if it is none."""
    ago = _AGO.fullmatch(text)
    if ago:
        found = (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    else:
        try:
            found = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise GazelledError(
                f'--since "{text}": no time', hint='as "90s", "5m", "2h", "1d", or "2026-01-31 12:00"',
                exit_code=ExitCode.USAGE,
            ) from None  # fmt: skip
    return found.strftime("%Y-%m-%dT%H:%M:%S.") + f"{found.microsecond // 1000:03d}Z"


def files(run_dir: RunDir, queues: Sequence[int]) -> dict[str, list[Path]]:
    """Return the logs there are, each with what was put aside before it: all, or those of some workers."""
    found: dict[str, list[Path]] = {}
    if not queues and run_dir.supervisor_log.exists():
        found["supervisor"] = [run_dir.supervisor_log]
    for path in sorted(run_dir.path.glob("worker.*.log"), key=lambda path: int(path.name.split(".")[1])):
        queue = int(path.name.split(".")[1])
        if not queues or queue in queues:
            old = path.with_suffix(".log.old")
            found[f"worker {queue}"] = [old, path] if old.exists() else [path]
    if not found:
        raise GazelledError(
            f"instance {run_dir.instance}: no logs" + (" of that queue" if queues else ""),
            hint=f"gazelled start -i {run_dir.instance}; a service's supervisor: journalctl -u gazelled",
            exit_code=ExitCode.NOT_RUNNING,
        )
    return found


def parse(who: str, lines: Sequence[str]) -> Iterator[Entry]:
    """Yield the entries of a log's lines."""
    last: Entry | None = None
    for line in lines:
        match = _LINE.fullmatch(printable(line))
        if match:
            if last is not None:
                yield last
            last = Entry(match[1], who, match[2], match[3])
        elif last is not None:
            last = replace(last, text=f"{last.text} | {printable(line).strip()}")
    if last is not None:
        yield last


def read(run_dir: RunDir, queues: Sequence[int], begin: str = "") -> Iterator[Entry]:
    """Yield all entries from a time on, oldest first."""
    entries = (
        list(parse(who, [line for path in paths for line in path.read_text(errors="replace").splitlines()]))
        for who, paths in files(run_dir, queues).items()
    )
    return (entry for entry in heapq.merge(*entries) if entry.time >= begin)


class Follower:
    """New lines of the logs as they come, also those of workers that are started meanwhile."""

    def __init__(self, run_dir: RunDir, queues: Sequence[int]) -> None:
        self._run_dir, self._queues = run_dir, queues
        self._at = {path: path.stat().st_size for paths in files(run_dir, queues).values() for path in paths}

    def new(self) -> list[Entry]:
        """Return the entries since the last look, oldest first; a log that was cut is read from its end."""
        found: list[Entry] = []
        for who, paths in files(self._run_dir, self._queues).items():
            path = paths[-1]
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                at = self._at.get(path, 0)
                file.seek(at if at <= size else size)
                text = file.read()
            whole = text.rfind(b"\n") + 1
            self._at[path] = (at if at <= size else size) + whole
            found += parse(who, text[:whole].decode(errors="replace").splitlines())
        return sorted(found)

    def wait(self) -> None:
        """Sleep until it is worth while to look again."""
        select.select([], [], [], _LOOK_S)
