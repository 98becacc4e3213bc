# SPDX-License-Identifier: MulanPSL-2.0
"""What was measured, and what it comes to: samples, their median and spread, and the verdict against a target."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from enum import Enum

WORSE_BY = 0.03  # a difference between two checkouts that matters


@dataclass(frozen=True)
class Sample:
    """One run of a load: its value in the load's unit, and the CPU seconds it cost per so many units of work."""

    value: float
    cpu: float | None = None
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """All runs of one load on one side with one placement."""

    side: str
    placement: str
    samples: tuple[Sample, ...] = ()
    failure: str = ""  # why there are no samples, or fewer

    @property
    def median(self) -> float:
        """Return the median value; ValueError without samples."""
        return statistics.median(sample.value for sample in self.samples)

    @property
    def low(self) -> float:
        """Return the smallest value."""
        return min(sample.value for sample in self.samples)

    @property
    def high(self) -> float:
        """Return the largest value."""
        return max(sample.value for sample in self.samples)

    @property
    def spread(self) -> float:
        """Return half the range as a share of the median: 0.05 reads as plus or minus 5 %."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0

    @property
    def cpu(self) -> float | None:
        """Return the median of the CPU seconds, None if they were not measured."""
        known = [sample.cpu for sample in self.samples if sample.cpu is not None]
        return statistics.median(known) if known else None

    def extra(self, key: str) -> float | None:
        """Return the median of a secondary figure."""
        known = [sample.extra[key] for sample in self.samples if key in sample.extra]
        return statistics.median(known) if known else None


class Kind(Enum):
    """What a target is about."""

    RATIO = "ratio"  # gazelled / kernel, at least
    FRACTION = "fraction"  # gazelled / kernel, at most: latencies
    AT_LEAST = "at least"  # the figure itself
    AT_MOST = "at most"

    @property
    def more_is_better(self) -> bool:
        """Tell whether a higher achievement is a better one."""
        return self in (Kind.RATIO, Kind.AT_LEAST)

    @property
    def relative(self) -> bool:
        """Tell whether the kernel's figure is part of the achievement."""
        return self in (Kind.RATIO, Kind.FRACTION)


@dataclass(frozen=True)
class Target:
    """The bar of a row: `must`, and `aim`, where it should go."""

    kind: Kind
    must: float
    aim: float
    unit: str = ""  # of absolute targets
    no_more_cpu: bool = False  # and at no more CPU per unit of work than the kernel
    against: str = ""  # a placement of the kernel; empty: its best


class Verdict(Enum):
    """How a row stands against its target."""

    AIM = "aim met"
    MUST = "must met"
    MISSED = "MISSED"
    FAILED = "FAILED"
    NONE = "no target"


def best_of(cells: list[Cell], more_is_better: bool) -> Cell | None:
    """Return the cell with the best median, None if none has samples."""
    measured = [cell for cell in cells if cell.samples]
    if not measured:
        return None
    return (max if more_is_better else min)(measured, key=lambda cell: cell.median)


def reference_of(kernel: list[Cell], target: Target | None, more_is_better: bool) -> Cell | None:
    """Return the kernel's cell that counts: its best, or its best where the target says; else one that says why not."""
    if target and target.against:
        kernel = [cell for cell in kernel if cell.placement == target.against or not cell.samples]
    return best_of(kernel, more_is_better) or (kernel[0] if kernel else None)


def achieved(target: Target, kernel: Cell | None, gazelled: Cell | None) -> float | None:
    """Return what is compared with must and aim; None if a side that is needed was not measured."""
    if gazelled is None or not gazelled.samples:
        return None
    if not target.kind.relative:
        return gazelled.median
    if kernel is None or not kernel.samples or not kernel.median:
        return None
    return gazelled.median / kernel.median


def is_worse(ours: Cell | None, other: Cell | None, more_is_better: bool) -> bool:
    """Tell whether our median is worse by more than WORSE_BY, and by more than both spreads together explain."""
    if not (ours and other and ours.samples and other.samples and ours.median and other.median):
        return False
    speed = ours.median / other.median if more_is_better else other.median / ours.median
    apart = ours.high < other.low if more_is_better else ours.low > other.high
    return speed < 1 - WORSE_BY and apart


def judge(target: Target | None, kernel: Cell | None, gazelled: Cell | None) -> Verdict:
    """Compare; a row without a target has no verdict, a row that could not be measured has failed."""
    if target is None:
        return Verdict.NONE
    reached = achieved(target, kernel, gazelled)
    if reached is None:
        return Verdict.FAILED
    if target.no_more_cpu:
        ours, theirs = (cell.cpu if cell else None for cell in (gazelled, kernel))
        if ours is None or theirs is None or ours > theirs:
            return Verdict.MISSED

    def reaches(bar: float) -> bool:
        return reached >= bar if target.kind.more_is_better else reached <= bar

    if reaches(target.aim):
        return Verdict.AIM
    return Verdict.MUST if reaches(target.must) else Verdict.MISSED


def figure(value: float, unit: str = "") -> str:
    """Return a number as a person reads it: three digits that count, thousands set apart."""
    if abs(value) >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}" if abs(value) >= 0.01 or not value else f"{value:.1e}"
    return f"{text} {unit}".rstrip()
