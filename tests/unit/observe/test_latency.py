# SPDX-License-Identifier: MulanPSL-2.0
"""Quantiles of the histograms that workers keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gazelled.observe.latency import Histogram, merged
from gazelled.pages.worker_page import HISTOGRAM_BUCKETS


def index(ns: int) -> int:
    """Return the bucket of gz_histogram_index()."""
    ns = min(ns, 2**32 - 1)
    if ns < 16:
        return ns
    shift = ns.bit_length() - 5
    return 16 * (shift + 1) + (ns >> shift) - 16


def histogram(*durations: int) -> Histogram:
    buckets = [0] * HISTOGRAM_BUCKETS
    for ns in durations:
        buckets[index(ns)] += 1
    return Histogram(len(durations), max(durations, default=0), buckets)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200), st.sampled_from([0.5, 0.99, 0.999, 1.0]))
def test_a_quantile_is_a_sixteenth_too_long_at_most(durations: list[int], share: float) -> None:
    found = histogram(*durations).quantile_ns(share)
    at_most = [ns for ns in durations if ns <= found]
    assert len(at_most) >= share * len(durations)
    fewer = [ns for ns in durations if ns < found - found // 16]
    assert len(fewer) < share * len(durations)


def test_nothing_has_no_duration() -> None:
    assert histogram().quantile_ns(0.99) == 0


def test_workers_together() -> None:
    both = merged([histogram(10, 20), histogram(3000)])
    assert (both.count, both.max_ns, both.quantile_ns(0.5)) == (3, 3000, 20)
    assert both.quantile_ns(1.0) == 3000
