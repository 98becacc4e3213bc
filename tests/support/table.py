# SPDX-License-Identifier: MulanPSL-2.0
"""Reads table.toml: one row for each function, flag, command and option, with what happens to it on the stack."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("table.toml")


@dataclass(frozen=True)
class Function:
    """A function of the C library: interposed, or not and why that is right."""

    name: str
    interposed: bool
    says: str


@dataclass(frozen=True)
class Row:
    """One flag, command or option on one kind of socket, and what the table says of it."""

    group: str  # "SOL_SOCKET", "send", "fcntl" ...
    name: str
    number: int
    level: int
    kind: str  # "tcp" or "udp"
    says: str  # "yes" or "kept" (the program sees what the kernel would show it), or the errno it is refused with
    note: str
    value: int
    raw: bytes
    room: int
    varies: bool

    @property
    def case(self) -> str:
        """Return the name of its probe."""
        return f"support {self.group} {self.name} {self.kind}"


@dataclass(frozen=True)
class Table:
    """All of it."""

    functions: list[Function]
    numbers: list[str]  # system calls by number
    rows: list[Row]
    titles: dict[str, str]


def _row(group: str, level: int, name: str, kind: str, row: dict[str, Any]) -> Row:
    return Row(
        group=group,
        name=name,
        number=row["number"],
        level=level,
        kind=kind,
        says=row[kind],
        note=row.get("note", ""),
        value=row.get("value", 1),
        raw=bytes.fromhex(row.get("bytes", "")),
        room=row.get("room", 4),
        varies=row.get("varies", False),
    )


def read() -> Table:
    """Read the table."""
    data = tomllib.loads(SOURCE.read_text())
    functions = [
        Function(name, bool(part.get("interposed", True)), part["says"])
        for part in data["function"]
        for name in part["names"]
    ]
    groups = [(group, body) for section in ("flag", "command", "option") for group, body in data[section].items()]
    rows = [
        _row(group, body.get("level", 0), name, kind, row)
        for group, body in groups
        for name, row in body["rows"].items()
        for kind in ("tcp", "udp")
        if kind in row
    ]
    titles = {group: body["title"] for group, body in groups}
    return Table(functions, data["syscall"]["numbers"], rows, titles)
