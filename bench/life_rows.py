# SPDX-License-Identifier: MulanPSL-2.0
"""The rows of scale and life: each is measured by itself, and one that fails leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bench import life, limits, scale
from bench.instance import Instance
from bench.lab import BenchError
from bench.report import Row
from bench.runner import Options
from bench.side import KERNEL_LO, KERNEL_VETH, Field, Side, Site
from bench.stats import Cell, Verdict, figure
from bench.targets import BURSTS, LIFE, SAME_HOST, TAP

LIFE_KEYS = {
    "scale-busy": "10 busy among all, of 10 alone",
    "scale-memory": "memory of an idle connection",
    "idle-cpu": "idle instance, of a core",
    "first-packet": "first packet after idle, extra",
    "start": "start to ready",
    "worker-death": "dead worker to serving",
    "crowd": "8 programs, 2 workers, requests",
    **{f"burst-{connects}": f"{connects:,} connects at once, answered" for connects in BURSTS},
}
_CONNECTIONS, _CONNECTIONS_QUICK = 50_000, 5_000
_IDLE_S, _IDLE_QUICK_S = 10.0, 3.0


@dataclass
class LifeRun:
    """Measures what is wanted; `rows` is what there is so far."""

    ground: Field
    options: Options
    quick: bool
    tell: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)

    def measure(self) -> None:
        """Measure everything wanted, the quiet things first."""
        if self._wants("start", "idle-cpu", "crowd"):
            self._try(("start", "idle-cpu", "crowd"), self._instance_of_two)
        if self._wants("first-packet"):
            self._try(("first-packet",), self._first_packet)
        if self._wants("worker-death"):
            self._try(("worker-death",), self._worker_death)
        for connects in BURSTS:
            if self._wants(f"burst-{connects}"):
                self._try((f"burst-{connects}",), partial(self._burst, connects))
        if self._wants("scale-busy", "scale-memory"):
            self._try(("scale-busy", "scale-memory"), self._scale)

    def _wants(self, *keys: str) -> bool:
        return not self.options.only or any(key in self.options.only for key in keys)

    def _add(self, key: str, unit: str, gazelled: Cell | None, kernel: Cell | None = None, note: str = "") -> None:
        row = Row(
            LIFE, key, LIFE_KEYS[key], unit, unit in ("req/s",) or key == "scale-busy", kernel, gazelled, "", note
        )
        self.rows.append(row)
        if gazelled and gazelled.samples:
            self.tell(f"{row.title}: {figure(gazelled.median, unit)}, {row.verdict.value}")

    def _try(self, keys: tuple[str, ...], measure: Callable[[], None]) -> None:
        """Measure; what of `keys` is missing afterwards has failed, with the reason."""
        reason = ""
        try:
            measure()
        except BenchError as error:
            reason = str(error)
            self.tell(f"{', '.join(keys)}: {reason}")
        there = {row.key for row in self.rows}
        for key in keys:
            if key not in there and self._wants(key):
                self._add(key, "", Cell("gazelled", "", (), reason), None, reason)
                assert self.rows[-1].verdict is Verdict.FAILED

    def _instance_of_two(self) -> None:
        instance, started = life.start_times(self.ground.lab, self.options.repeat if self._wants("start") else 1)
        if self._wants("start"):
            self._add("start", "s", started)
        if self._wants("idle-cpu"):
            idle = life.idle_cpu(instance, _IDLE_QUICK_S if self.quick else _IDLE_S)
            self._add("idle-cpu", "%", idle)
        if self._wants("crowd"):
            self._crowd(instance)
        instance.stop()

    def _crowd(self, instance: Instance) -> None:
        site = Site(self.ground.lab, "crowd", instance)
        ours = Side(SAME_HOST, site, self.ground.lab.home, instance.address, attached=True)
        found = life.crowd(
            {KERNEL_LO: self.ground.sides[KERNEL_LO], SAME_HOST: ours}, min(self.options.repeat, 3), self.tell
        )
        mine, theirs = found[SAME_HOST], found[KERNEL_LO]
        note = mine.failure or (
            f"the worst served of four pairs got {mine.extra('least_share') or 0:.0%} of an even share"
            f" (kernel {theirs.extra('least_share') or 0:.0%})"
        )
        self._add("crowd", "req/s", mine, theirs, note)

    def _first_packet(self) -> None:
        least = limits.relay(self.ground.lab, life.GAP_MS)
        wakes = "; ".join(
            f"{where} {said['busy_us']:.0f} us busy, {said['idle_us']:.0f} us after 20 ms of sleep"
            for where, said in limits.wake(self.ground.lab).items()
        )
        limit = (
            f"limit: two processes that only hand a datagram to and fro over a tap {least['busy_us']:.0f} ->"
            f" {least['idle_us']:.0f} us ({least['idle_us'] - least['busy_us']:.0f} extra);"
            f" an eventfd's round trip: {wakes}"
        )
        repeat = min(self.options.repeat, 3)
        ours = life.first_packet(self._usable(TAP), repeat)
        theirs = life.first_packet(self.ground.sides[KERNEL_VETH], repeat)
        note = ", ".join(
            f"{cell.side} {cell.extra('busy_us') or 0:.0f} -> {cell.extra('idle_us') or 0:.0f} us"
            for cell in (ours, theirs)
        )
        self._add("first-packet", "us", ours, theirs, f"round trip busy -> idle: {note}; {limit}")

    def _worker_death(self) -> None:
        self._add("worker-death", "ms", life.worker_death(self.ground.lab, min(self.options.repeat, 3)))

    def _burst(self, connects: int) -> None:
        sides = (self.ground.sides[KERNEL_VETH], self._usable(TAP))
        theirs, ours = scale.bursts(sides, connects, min(self.options.repeat, 3))
        words = [f"{cell.side} {figure(cell.extra('connected_ms') or 0)} ms" for cell in (ours, theirs) if cell.samples]
        failures = [cell.failure for cell in (ours, theirs) if cell.failure]
        note = "; ".join((*failures, f"until all are connected: {', '.join(words)}"))
        self._add(f"burst-{connects}", "ms", ours, theirs, note)

    def _scale(self) -> None:
        connections = _CONNECTIONS_QUICK if self.quick else _CONNECTIONS
        repeat = self.options.repeat
        theirs = scale.measure(self.ground.sides[KERNEL_VETH], connections, repeat, self.tell)
        ours = scale.measure(self._usable(TAP), connections, repeat, self.tell)
        for_note = f"{connections:,} connections; of 10 alone: gazelled {ours.alone.median:,.0f}/s, kernel "
        for_note += f"{theirs.alone.median:,.0f}/s; among all: {ours.among.median:,.0f}/s, {theirs.among.median:,.0f}/s"
        self._add("scale-busy", "%", ours.share, theirs.share, for_note)
        words = "; ".join(_memory_note(cell) for cell in (ours.memory, theirs.memory))
        self._add("scale-memory", "KB", ours.memory, None, f"{words} (the kernel's clients included)")

    def _usable(self, key: str) -> Side:
        side = self.ground.sides[key]
        if side.site.key in self.ground.broken:
            raise BenchError(self.ground.broken[side.site.key])
        return side


def _memory_note(cell: Cell) -> str:
    parts = {name: cell.extra(f"{name}_kb") or 0 for name in ("worker", "shared", "kernel")}
    sizes = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    return f"{cell.side}: {sizes} KB, {cell.extra('connects_per_s') or 0:,.0f} connects/s"
