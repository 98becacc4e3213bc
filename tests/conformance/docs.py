# SPDX-License-Identifier: MulanPSL-2.0
"""Writes what differences.toml and the cases say into docs/reference/conformance.md: `python -m conformance.docs`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from conformance.compare import read
from conformance.registry import MODES, load

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "conformance.md"
_BEGIN, _END = "<!-- begin: written by python -m conformance.docs -->", "<!-- end -->"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _body() -> str:
    table, cases = read(), load()
    runs = Counter(mode for case in cases.values() for mode in case.modes)
    not_yet = Counter(need for case in cases.values() for need in case.needs & table.not_yet.keys())
    parts = [
        f"{len(cases)} cases, {sum(runs.values())} pairs of runs.",
        _table(["mode", "cases", "who is where"], [[m.name, str(runs[m.name]), m.says] for m in MODES.values()]),
        "### Explained differences",
        _table(
            ["case", "modes", "kernel", "stack", "why"],
            [
                [
                    f"`{row.case}`",
                    ", ".join(row.modes) or "all",
                    "<br>".join(row.kernel),
                    "<br>".join(row.stack),
                    row.why,
                ]
                for row in table.explained
            ],
        )
        if table.explained
        else "None.",
        "### Not yet on the stack",
        _table(
            ["capability", "cases", "until then"],
            [[name, str(not_yet[name]), why] for name, why in sorted(table.not_yet.items())],
        )
        if table.not_yet
        else "Nothing: no case is left out.",
    ]
    return "\n\n".join(parts)


def rendered(text: str) -> str:
    """Return the page with its generated part up to date."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n\n{_body()}\n\n{_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text()))
