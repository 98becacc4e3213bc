# SPDX-License-Identifier: MulanPSL-2.0
"""What differs between the runs of a suite, whether cpython_explained.toml says why, and the page about it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

EXPLAINED = Path(__file__).with_name("cpython_explained.toml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "cpython-suites.md"
PLACES = ("kernel", "loopback", "stack")
_BEGIN, _END = "<!-- begin: written by python -m programs.cpython_suites --document -->", "<!-- end -->"

Outcomes = Mapping[str, Mapping[str, str]]  # of each test: its "result" and "detail"
Report = Mapping[str, Mapping[str, Outcomes]]  # of each suite, at each place


@dataclass(frozen=True)
class Difference:
    """A test that does not pass as it does on the kernel."""

    test: str  # without "test." before it
    where: str
    kernel: str
    result: str
    detail: str

    @property
    def is_worse(self) -> bool:
        """Whether it passes on the kernel alone."""
        return self.kernel == "ok"

    def __str__(self) -> str:
        last = (self.detail.strip().splitlines() or [""])[-1]
        return f"{self.test}: {self.kernel} on the kernel, {self.result} on {self.where}: {last}"


@dataclass(frozen=True)
class Explanation:
    """An entry of the table."""

    tests: str
    where: tuple[str, ...]
    why: str
    sometimes: bool  # it takes a race

    def fits(self, difference: Difference) -> bool:
        """Whether it is about this one."""
        return difference.where in self.where and fnmatchcase(difference.test, self.tests)


def explanations() -> list[Explanation]:
    """Read the table."""
    rows = tomllib.loads(EXPLAINED.read_text()).get("explained", [])
    return [Explanation(row["tests"], tuple(row["where"]), row["why"], row.get("sometimes", False)) for row in rows]


def differences(ends: Mapping[str, Outcomes]) -> list[Difference]:
    """Return where the other places' outcomes of a suite are not the kernel's."""
    found = []
    absent = {"result": "not run", "detail": ""}
    for where in PLACES[1:]:
        for name in sorted(ends["kernel"].keys() | ends[where].keys()):
            kernel, other = ends["kernel"].get(name, absent), ends[where].get(name, absent)
            if kernel["result"] != other["result"]:
                test = name.removeprefix("test.")
                found.append(Difference(test, where, kernel["result"], other["result"], other["detail"]))
    return found


def unexplained(found: Sequence[Difference], table: Sequence[Explanation]) -> list[Difference]:
    """Return what is worse than on the kernel without a reason given."""
    return [one for one in found if one.is_worse and not any(row.fits(one) for row in table)]


def stale(found: Sequence[Difference], table: Sequence[Explanation], suites: Sequence[str]) -> list[str]:
    """Return the entries about one of these suites that explain nothing, each with the place where."""
    return [
        f"{row.tests} on {where}"
        for row in table
        if row.tests.split(".")[0] in suites
        for where in row.where
        if not row.sometimes and not any(one.where == where and row.fits(one) for one in found)
    ]


def passed(ends: Outcomes) -> int:
    """Return how many passed."""
    return sum(end["result"] == "ok" for end in ends.values())


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def rendered(text: str, report: Report) -> str:
    """Return the page with its generated part from these runs."""
    found = [one for ends in report.values() for one in differences(ends)]
    counts = [
        [suite, str(len(ends["kernel"])), *(str(passed(ends[where])) for where in PLACES)]
        for suite, ends in report.items()
    ]
    why = [
        [
            f"`{row.tests}`",
            ", ".join(f"{sum(o.where == w and row.fits(o) for o in found)} on {w}" for w in row.where),
            row.why,
        ]
        for row in explanations()
    ]
    elsewhere = sorted({one.test for one in found if not one.is_worse})
    parts = [
        _table(["suite", "tests", *(f"passed: {where}" for where in PLACES)], counts),
        "### Explained differences",
        _table(["tests", "how many", "why"], why) if why else "None.",
        f"Other outcomes that differ, of tests that do not pass on the kernel: {', '.join(elsewhere) or 'none'}.",
    ]
    before, rest = text.split(_BEGIN)
    return "\n\n".join([f"{before}{_BEGIN}", *parts, _END]) + rest.split(_END)[1]
