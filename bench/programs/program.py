# SPDX-License-Identifier: MulanPSL-2.0
"""What a program is to the runner: a server, and loads that one client run measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from kit.lab import Process

from bench.cpu import children_of
from bench.lab import Lab, end_of_output
from bench.side import PLACEMENTS, Side, Site

MILLION = 1e6
GIGABYTE = 1e9


@dataclass(frozen=True)
class Outcome:
    """What one client run measured, and how much work it did: CPU seconds are stated per `Load.work_unit` of it."""

    value: float
    work: float
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """One thing that is measured. `run` drives it once on a side with the client on a CPU, for about so much work."""

    key: str
    title: str
    unit: str
    run: Callable[[Side, int, int], Outcome]
    more_is_better: bool = True
    work_unit: float = MILLION
    work_name: str = "M req"
    rate: Callable[[Outcome], float] = lambda outcome: outcome.value  # work per second, where work bounds a run
    first: int = 0  # work of the first, discarded run; 0: `run` is bounded by time and ignores it
    most: int = 0  # work of a run at most
    placements: tuple[str, ...] = PLACEMENTS
    sides: tuple[str, ...] = ()  # empty: all
    limit: Callable[[Lab, str, int], float] | None = None  # of the tap: its value with a server that costs nothing,
    # which behaves in one of limits.MANNERS, for about so much work

    def sized(self, rate: float, seconds: float) -> int:
        """Return the work that takes about so many seconds at a rate."""
        return max(self.first, int(min(self.most, rate * seconds))) if self.first else 0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: Process

    def pids(self) -> list[int]:
        """Return all its processes."""
        return children_of(self.process.pid)

    def said(self) -> str:
        """Return the last lines of its output."""
        return end_of_output(self.process.output())


class Program(ABC):
    """A server program and its loads."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]  # programs on PATH

    @abstractmethod
    def loads(self) -> list[Load]:
        """Return what is measured with it."""

    @abstractmethod
    def serve(self, site: Site) -> Process:
        """Start its server on a site; it need not answer yet."""

    @abstractmethod
    def answers(self, side: Side) -> bool:
        """Tell whether the server answers a client on a side, and prepare what the loads need there."""
