# SPDX-License-Identifier: MulanPSL-2.0
"""Network tests need root. Without it they fail, all of them: a test left out is not a test passed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.lab import Kit

# What keeps all CPUs busy, watches how soon something happens, or counts what the whole machine has, runs alone.
ALONE = {
    "test_chaos.py",
    "test_hostile_pair.py",
    "test_idle.py",
    "test_latency.py",
    "test_one_worker_per_queue.py",
    "test_stats.py",
    "test_syn_flood.py",
    "test_uplink.py",
    "test_worker_death.py",
}


def pytest_sessionstart() -> None:
    # Whoever ends a run by SIGTERM gets what Ctrl-C gets: everything the running test has made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and items:
        raise pytest.UsageError("the network tests make namespaces and devices: run them as root")
    for item in items:
        item.add_marker(pytest.mark.timeout(300))
        if item.path.name in ALONE:
            item.add_marker(pytest.mark.alone)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    try:
        yield made
    finally:
        made.close()
