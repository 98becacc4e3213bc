# SPDX-License-Identifier: MulanPSL-2.0
"""The measuring itself: every load on every side in turns (A B A B), so that what drifts drifts for all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from bench.cpu import CpuMeter, machine_busy_seconds, softirq_threads
from bench.lab import BenchError, end_of_output, pin, until
from bench.limits import MANNERS
from bench.programs import Load, Outcome, Program, Server
from bench.side import BASELINE, OTHER, Field, Side, Site
from bench.stats import Cell, Sample, achieved, best_of, figure, reference_of
from bench.targets import TAP, TARGETS

_ANSWER_S = 10.0
_SIZING_S = 0.1  # of the second, discarded run, by which the work of the others is sized
CLOSE = 0.1  # of its bar: what came nearer than that...
CLOSE_TIMES = 3  # ...is measured so many times as often
_FAILURES_MAX = 2  # of one cell; then the load is left there
OTHERS_MAX = 0.1  # of the machine taken by others during a run: such a run is tried again
_TRIES = 3


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    repeat: int
    seconds: float  # of a run that is bounded by its work
    only: tuple[str, ...] = ()  # programs, loads or life measurements
    paths: tuple[str, ...] = ()

    def wants(self, program: str, load: str = "") -> bool:
        """Tell whether a load, or anything of a program, is wanted."""
        if not self.only or program in self.only:
            return True
        return load in self.only if load else any(each.startswith(_prefix(program)) for each in self.only)


def _prefix(program: str) -> str:
    return {"nginx": "wrk-", "sockperf": "pingpong-"}.get(program, f"{program}-")


Cells = dict[tuple[str, str], list[Cell]]  # by load and side
Limits = dict[str, dict[str, list[float]]]  # of the tap, by load and manner


def close_calls(load: Load, cells: Sequence[Cell]) -> set[str]:
    """Return the sides of those rows that came so near to their bar that the noise of a few runs would decide."""
    sides: set[str] = set()
    for path, base in BASELINE.items():
        target = TARGETS.get((path, load.key))
        if target is None:
            continue
        ours, theirs = ([cell for cell in cells if cell.side == side] for side in (path, base))
        kernel = reference_of(theirs, target, load.more_is_better)
        reached = achieved(target, kernel, best_of(ours, load.more_is_better))
        if reached is not None and abs(reached / target.must - 1) < CLOSE:
            sides |= {path, base} | {cell.side for cell in cells if cell.side == OTHER[path]}
    return sides


@dataclass
class Runner:
    """Measures programs on a field. What it found is in `cells`, whatever happens later."""

    ground: Field
    options: Options
    tell: Callable[[str], None]
    cells: Cells = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    patience: float = 100.0  # seconds of the whole run for trying again
    _servers: dict[str, Server] = field(default_factory=dict)  # by site
    _softirq: list[int] = field(default_factory=softirq_threads)

    def measure(self, program: Program) -> None:
        """Measure all wanted loads of a program; what cannot be measured is a cell with the reason."""
        loads = [load for load in program.loads() if self.options.wants(program.name, load.key)]
        missing = [each for each in program.needs if shutil.which(each) is None]
        if missing:
            self.tell(f"{program.name}: not measured, not installed: {', '.join(missing)}")
            for load in loads:
                for side in self.ground.sides.values():
                    self._failed(load, side, f"not installed: {', '.join(missing)}")
            return
        for site in self.ground.sites.values():
            self._serve(program, site)
        try:
            for load in loads:
                self._measure_load(program, load)
        finally:
            for server in self._servers.values():
                server.process.stop()
            self._servers.clear()

    def _sides(self, load: Load) -> Iterable[Side]:
        return (side for key, side in self.ground.sides.items() if not load.sides or key in load.sides)

    def _failed(self, load: Load, side: Side, reason: str) -> None:
        self.cells.setdefault((load.key, side.key), []).append(Cell(side.key, load.placements[0], (), reason))

    def _serve(self, program: Program, site: Site) -> None:
        """Start the server on a site and wait until it answers on all sides; else the site is broken for it."""
        if site.key in self.ground.broken:
            return
        process = program.serve(site)
        self._servers[site.key] = Server(process)

        def answers(side: Side) -> bool:
            if not process.alive:
                raise BenchError(
                    f"{program.name} ended with {process.popen.returncode}: {end_of_output(process.output())}"
                )
            return program.answers(side)

        for side in [each for each in self.ground.sides.values() if each.site is site]:
            try:
                until(lambda side=side: answers(side), f"{program.name} to answer on {side.key}", _ANSWER_S)  # type: ignore[misc]
            except BenchError as error:
                self.tell(f"  {error}")
                self.notes[program.name, side.key] = str(error)

    def _measure_load(self, program: Program, load: Load) -> None:
        kept: list[tuple[Side, str, int]] = []
        for side in self._sides(load):
            reason = self.ground.broken.get(side.site.key) or self.notes.get((program.name, side.key))
            if reason:
                self._failed(load, side, reason)
                continue
            try:
                kept += self._sized(load, side)
            except BenchError as error:
                self.tell(f"  {load.title}, {side.key}: {error}")
                self._failed(load, side, str(error))
                self._repair(program, side)
        found = {(side.key, placement): Cell(side.key, placement) for side, placement, _ in kept}
        failures = dict.fromkeys(found, 0)
        works = {side.key: work for side, _, work in kept}  # of either placement: only the limit asks

        def turns(count: int, sides: Iterable[str]) -> None:
            for _ in range(count):
                for side, placement, work in [each for each in kept if each[0].key in sides]:
                    key = (side.key, placement)
                    if failures[key] >= _FAILURES_MAX:
                        continue
                    try:
                        sample = self._undisturbed(load, side, placement, work)
                        found[key] = replace(found[key], samples=(*found[key].samples, sample))
                    except BenchError as error:
                        failures[key] += 1
                        found[key] = replace(found[key], failure=str(error))
                        self.tell(f"  {load.title}, {side.key}: {error}")
                        self._repair(program, side)
                if TAP in works and TAP in sides:
                    self._measure_limit(load, works[TAP])

        turns(self.options.repeat, self.ground.sides)
        turns((CLOSE_TIMES - 1) * self.options.repeat, close_calls(load, list(found.values())))
        for (side_key, _), cell in found.items():
            self.cells.setdefault((load.key, side_key), []).append(cell)
        self.tell(f"{load.title}: " + self._summary(load))

    def _measure_limit(self, load: Load, work: int) -> None:
        """Take a turn of what the tap would allow; one that fails leaves the row without that remark."""
        if load.limit is None:
            return
        for manner in MANNERS:
            try:
                value = load.limit(self.ground.lab, manner, work)
                self.limits.setdefault(load.key, {}).setdefault(manner, []).append(value)
            except BenchError as error:
                self.tell(f"  {load.title}, limit: {error}")

    def _summary(self, load: Load) -> str:
        words = []
        for side in self._sides(load):
            cells = [cell for cell in self.cells.get((load.key, side.key), []) if cell.samples]
            best = (max if load.more_is_better else min)(cells, key=lambda cell: cell.median) if cells else None
            words.append(f"{side.key} {figure(best.median)}" if best else f"{side.key} -")
        return ", ".join(words) + f" {load.unit}"

    def _sized(self, load: Load, side: Side) -> list[tuple[Side, str, int]]:
        """Warm up on every placement, and size its work."""
        sized = []
        for placement in load.placements:
            packets = self._packets(side)
            _, outcome = self._run(load, side, placement, load.first)
            if load.first:
                short = load.sized(load.rate(outcome), _SIZING_S)
                _, outcome = self._run(load, side, placement, short)
            self._check_path(load, side, self._packets(side) - packets, outcome)
            sized.append((side, placement, load.sized(load.rate(outcome), self.options.seconds)))
        return sized

    def _packets(self, side: Side) -> int:
        if not side.attached or side.site.instance is None:
            return 0
        return side.site.instance.counter("rx_packets")

    def _check_path(self, load: Load, side: Side, packets: int, outcome: Outcome) -> None:
        """A same-host load that came as packets was measured, but it is not what its row says."""
        pieces = outcome.work / (65536 if load.work_name == "GB" else 1)
        if side.attached and packets > 500 + pieces / 10:
            self.notes[load.key, side.key] = f"went through {packets:,} packets, not the same-host path"

    def _undisturbed(self, load: Load, side: Side, placement: str, work: int) -> Sample:
        """Run; as long as others take too much of the machine and there is patience, again. The quietest run counts."""
        runs: list[Sample] = []
        while True:
            before = time.monotonic()
            runs.append(self._run(load, side, placement, work)[0])
            best = min(runs, key=lambda sample: sample.extra["others"])
            if best.extra["others"] <= OTHERS_MAX or len(runs) == _TRIES or self.patience <= 0:
                return best
            self.patience -= time.monotonic() - before

    def _run(self, load: Load, side: Side, placement: str, work: int) -> tuple[Sample, Outcome]:
        server = self._servers.get(side.site.key)
        if server is None or not server.process.alive:
            raise BenchError(f"the server ended: {server.said()}" if server else "no server")
        server_cpu, client_cpu = side.cpus(placement)
        pids = server.pids()
        for pid in pids:
            pin(pid, server_cpu)
        meter = CpuMeter([*pids, *side.site.stack_pids(), *self._softirq])
        began, busy = time.monotonic(), machine_busy_seconds()
        outcome = load.run(side, client_cpu, work)
        own = meter.seconds()
        took = (time.monotonic() - began) * (os.cpu_count() or 1)
        others = min(1.0, max(0.0, machine_busy_seconds() - busy - own) / took)
        cpu = own / outcome.work * load.work_unit if outcome.work else None
        return Sample(outcome.value, cpu, {**outcome.extra, "others": others}), outcome

    def _repair(self, program: Program, side: Side) -> None:
        """Get a site to serve again after a failure: another server, then another instance; else it is broken."""
        site = side.site
        server = self._servers.get(site.key)
        if server and server.process.alive and program.answers(side):
            return
        for attempt in ("server", "instance"):
            try:
                if server:
                    server.process.stop()
                if attempt == "instance":
                    site.renew()
                self.notes.pop((program.name, side.key), None)
                self._serve(program, site)
                server = self._servers.get(site.key)
            except BenchError as error:
                self.notes[program.name, side.key] = str(error)
            if (program.name, side.key) not in self.notes:
                self.tell(f"  {side.key}: serves again with another {attempt}")
                return
        self.tell(f"  {side.key}: given up for {program.name}: {self.notes[program.name, side.key]}")
