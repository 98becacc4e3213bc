# SPDX-License-Identifier: MulanPSL-2.0
"""Writes the table into docs/reference/support.md: `python -m support`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from support.table import Row, Table, read

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "support.md"
_BEGIN, _END = "<!-- begin: written by python -m support -->", "<!-- end -->"


def _lines(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _functions(table: Table, interposed: bool) -> str:
    wanted = [f for f in table.functions if f.interposed == interposed]
    return _lines(
        ["functions", "what they do"],
        [
            [", ".join(f"`{f.name}`" for f in part), says]
            for says, part in groupby(wanted, key=lambda function: function.says)
        ],
    )


def _group(rows: list[Row]) -> str:
    kinds = [kind for kind in ("tcp", "udp") if any(row.kind == kind for row in rows)]
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, {})[row.kind] = row
    return _lines(
        ["", *(kind.upper() for kind in kinds), ""],
        [
            [
                f"`{name}`",
                *(said[kind].says if kind in said else "" for kind in kinds),
                next(iter(said.values())).note,
            ]
            for name, said in by_name.items()
        ],
    )


def _body() -> str:
    table = read()
    parts = ["## Functions of the C library, interposed", _functions(table, True)]
    parts += ["System calls by number: " + ", ".join(f"`SYS_{name}`" for name in table.numbers) + "."]
    parts += ["## Functions that are not interposed", _functions(table, False)]
    for group, title in table.titles.items():
        parts += [f"## {title}", _group([row for row in table.rows if row.group == group])]
    return "\n\n".join(parts)


def rendered(text: str) -> str:
    """Return the page with its generated part up to date."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n\n{_body()}\n\n{_END}{after}"
