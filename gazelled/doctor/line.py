# SPDX-License-Identifier: MulanPSL-2.0
"""A line of `gazelled check`: what was looked at, how it is, what that costs, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gazelled.host.journal import HostChange

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. A problem keeps gazelled from working; a warning makes it slower or less safe."""

    subject: str
    level: Level
    found: str
    cost: str = ""
    command: str = ""  # that mends it
    fixes: tuple[HostChange, ...] = field(default=(), compare=False)  # what --fix does about it, each can be undone

    def to_dict(self) -> dict[str, object]:
        """Return it as `check --json` prints it."""
        shown = {"subject": self.subject, "level": self.level, "found": self.found}
        return {**shown, "cost": self.cost, "command": self.command, "fixable": bool(self.fixes)}


def ok(subject: str, found: str) -> Line:
    """Return a line about something that is as it should be."""
    return Line(subject, "ok", found)


def warning(subject: str, found: str, cost: str, command: str, *fixes: HostChange) -> Line:
    """Return a line about something that costs speed or safety."""
    return Line(subject, "warning", found, cost, command, fixes)


def problem(subject: str, found: str, cost: str, command: str, *fixes: HostChange) -> Line:
    """Return a line about something without which it does not work."""
    return Line(subject, "problem", found, cost, command, fixes)
