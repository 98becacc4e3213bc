# SPDX-License-Identifier: MulanPSL-2.0
"""Where the time of a request goes: the stages a worker times while a tracing client is connected to it.

NIC rx -> stack -> FIFO -> application reads -> application writes -> stack -> NIC tx; enum gz_stage of worker_page.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_control import TRACE, WorkerControl, message
from gazelled.pages.worker_page import STAGES, WorkerPage


@dataclass(frozen=True)
class Histogram:
    """Durations by size: how many fell into each bucket of gz_histogram_index()."""

    count: int
    max_ns: int
    buckets: Sequence[int]

    def quantile_ns(self, share: float) -> int:
        """Return the duration that `share` of all did not exceed, rounded up by at most 1/16; 0 if there are none."""
        wanted = share * sum(self.buckets)
        below = 0
        for index, count in enumerate(self.buckets):
            below += count
            if count and below >= wanted:
                return min(_upper_ns(index), self.max_ns)
        return self.max_ns


def _upper_ns(index: int) -> int:
    """Return the longest duration of a bucket."""
    if index < 16:
        return index
    shift, rest = divmod(index, 16)
    return ((rest + 17) << (shift - 1)) - 1


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """Return all of them as one."""
    return Histogram(
        sum(each.count for each in histograms),
        max(each.max_ns for each in histograms),
        [sum(counts) for counts in zip(*(each.buckets for each in histograms), strict=True)],
    )


@contextmanager
def traced(run_dir: RunDir, queue_ids: Sequence[int]) -> Iterator[dict[int, WorkerPage]]:
    """Have workers time requests while the context lasts; yields their pages. GazelledError if one does not."""
    with ExitStack() as stack:
        pages: dict[int, WorkerPage] = {}
        for queue_id in queue_ids:
            control = WorkerControl(run_dir, queue_id)
            stack.callback(control.close)
            control.say(trace_request())
            page = WorkerPage(run_dir.worker_page(queue_id))
            stack.callback(page.close)
            pages[queue_id] = page
        yield pages


def trace_request() -> bytes:
    """Return the message that asks a worker to time requests until its connection ends; from root only."""
    return message(TRACE)


@dataclass(frozen=True)
class Latency:
    """What was found: each stage over all workers, nanoseconds."""

    seconds: float
    stages: dict[str, Histogram]

    @classmethod
    def of(cls, pages: Sequence[WorkerPage], seconds: float) -> Latency:
        """Read the pages as they are now."""
        found = [page.latency() for page in pages]
        return cls(seconds, {stage: merged([Histogram(*each[stage]) for each in found]) for stage in STAGES})

    def rows(self) -> list[dict[str, int | str]]:
        """Return one row for each stage, in the order a request meets them, and the whole at the end."""
        return [
            {
                "stage": stage,
                "count": histogram.count,
                "p50_ns": histogram.quantile_ns(0.5),
                "p99_ns": histogram.quantile_ns(0.99),
                "p999_ns": histogram.quantile_ns(0.999),
                "max_ns": histogram.max_ns,
            }
            for stage, histogram in self.stages.items()
        ]
