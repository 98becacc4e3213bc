# SPDX-License-Identifier: MulanPSL-2.0
"""All that `gazelled check` looks at, in the order a person reads it, and what --fix does about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.run_root import run_root
from gazelled.doctor import cpus, installed, kernel
from gazelled.doctor.line import Level, Line, ok
from gazelled.doctor.machine import Machine
from gazelled.host import changes  # noqa: F401  makes its kinds known to the journal
from gazelled.host.journal import Journal

_LEVELS: dict[str, Level] = {"error": "problem", "warning": "warning"}
_COSTS = {"problem": "`start` refuses", "warning": "it works, but slower than it could"}


def look(machine: Machine) -> Iterator[Line]:
    """Yield every line about a machine."""
    yield from kernel.look(machine)
    yield from cpus.look(machine)
    yield from _planned(machine)
    yield from installed.look(machine)


def _planned(machine: Machine) -> Iterator[Line]:
    """Yield what the planner finds: CPUs, siblings, nodes, memory, hugepages, devices and addresses."""
    found = [finding for finding in machine.plan.findings if finding.severity in _LEVELS]
    for finding in found:
        level = _LEVELS[finding.severity]
        yield Line(finding.object, level, finding.reason, _COSTS[level], finding.hint)
    if not found:
        yield ok("plan", f"{len(machine.plan.workers)} workers on driver {machine.plan.device.driver}: nothing to say")


def exit_code(lines: Sequence[Line]) -> ExitCode:
    """Return what `check` ends with."""
    levels = {line.level for line in lines}
    if "problem" in levels:
        return ExitCode.DEGRADED
    return ExitCode.WARNED if "warning" in levels else ExitCode.OK


def fix(lines: Sequence[Line], agreed: Callable[[str], bool], report: Callable[[str], None]) -> int:
    """Make the changes that can be undone, each after it was agreed to; returns how many. `recover` undoes them."""
    journal, done = Journal(run_root() / "host" / "journal"), 0
    for line in lines:
        for change in line.fixes:
            if not agreed(f"{line.subject}: {line.found}: {change.describe()}"):
                continue
            try:
                journal.make(change)
            except GazelledError as error:
                report(f"not done: {error.message}")
                journal.undo_where(lambda made, failed=change: made == failed, report)  # type: ignore[misc]
                continue
            report(f"done: {change.describe()} (`gazelled recover` puts it back)")
            done += 1
    return done


def undo(report: Callable[[str], None]) -> list[str]:
    """Undo what `fix` has done; returns the problems."""
    directory = run_root() / "host"
    if not directory.is_dir():
        return []
    problems = Journal(directory / "journal").undo_all(report)
    if not problems:
        directory.rmdir()
    return problems
