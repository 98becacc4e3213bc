# SPDX-License-Identifier: MulanPSL-2.0
"""Compares two traces, and knows which differences are explained (differences.toml)."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

TABLE = Path(__file__).with_name("differences.toml")


@dataclass(frozen=True)
class Explained:
    """A difference that may be: these lines of the kernel's trace stand against these of the stack's."""

    case: str
    modes: tuple[str, ...]
    kernel: tuple[str, ...]
    stack: tuple[str, ...]
    why: str

    def covers(self, case: str, mode: str) -> bool:
        """Tell whether it is about this case in this mode."""
        return fnmatchcase(case, self.case) and (not self.modes or mode in self.modes)


@dataclass(frozen=True)
class Table:
    """What differences.toml says."""

    explained: tuple[Explained, ...]
    not_yet: dict[str, str]  # capability the stack lacks -> what its absence means


def read(path: Path = TABLE) -> Table:
    """Read the table."""
    raw = tomllib.loads(path.read_text())
    rows = [
        Explained(
            row["case"],
            tuple(row.get("modes", ())),
            tuple(row.get("kernel", ())),
            tuple(row.get("stack", ())),
            row["why"],
        )
        for row in raw.get("difference", [])
    ]
    return Table(tuple(rows), dict(raw.get("not_yet", {})))


def difference(kernel: list[str], stack: list[str]) -> str:
    """Return how two traces differ, readable; empty if they do not."""
    return "\n".join(difflib.unified_diff(kernel, stack, "kernel", "stack", lineterm="", n=30))


def _glob(line: str, patterns: tuple[str, ...]) -> bool:
    # [ is common in traces and begins a set in fnmatch: it stands for itself here.
    return any(fnmatchcase(line, pattern.replace("[", "[[]")) for pattern in patterns)


def is_explained(kernel: list[str], stack: list[str], rows: list[Explained]) -> bool:
    """Tell whether every line that differs is in one of the rows."""
    for line in difflib.ndiff(kernel, stack):
        if line.startswith("- ") and not _glob(line[2:], tuple(p for row in rows for p in row.kernel)):
            return False
        if line.startswith("+ ") and not _glob(line[2:], tuple(p for row in rows for p in row.stack)):
            return False
    return True


def verdict(case: str, mode: str, kernel: list[str], stack: list[str], table: Table) -> tuple[str, str]:
    """Return "same", "explained" or "different", and what there is to say about it."""
    rows = [row for row in table.explained if row.covers(case, mode)]
    if kernel == stack:
        if rows and all(row.modes and "*" not in row.case for row in rows):
            return "different", "the same now: remove it from differences.toml"
        return "same", ""
    if rows and is_explained(kernel, stack, rows):
        return "explained", rows[0].why
    return "different", difference(kernel, stack)
