# SPDX-License-Identifier: MulanPSL-2.0
"""Every program runs in each form an instance has: one worker, two, and the send/recv split, and beside the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kit.instance import Instance, on_tap, on_uplink
from kit.lab import Kit, full
from net.conftest import kit, pytest_collection_modifyitems, pytest_sessionstart

__all__ = ["LAYOUTS", "kit", "laid_out", "pytest_collection_modifyitems", "pytest_sessionstart"]


LAYOUTS = ("one", "two", "split", "uplink", *(("uplink-one",) if full() else ()))


@contextmanager
def laid_out(kit: Kit, layout: str) -> Iterator[Instance]:
    """Start an instance of a layout; at the end no worker may have died."""
    workers = 1 if layout.endswith("one") else 2
    made = on_uplink(kit, workers) if layout.startswith("uplink") else on_tap(kit, workers, split=layout == "split")
    made.start()
    yield made
    pids = {row["pid"] for row in made.status()["workers"]}
    assert None not in pids, f"a worker died: {made.logs()}"
    assert all(row["restarts"] == 0 for row in made.status()["workers"]), made.logs()


@pytest.fixture(params=LAYOUTS)
def instance(request: pytest.FixtureRequest, kit: Kit) -> Iterator[Instance]:
    with laid_out(kit, request.param) as made:
        yield made
