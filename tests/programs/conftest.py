# SPDX-License-Identifier: MulanPSL-2.0
"""Every program runs in each form an instance has: one worker, two, and the send/recv split."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from net.conftest import kit, pytest_collection_modifyitems, pytest_sessionstart
from net.instance import Instance, on_tap
from net.kit import Kit

__all__ = ["kit", "pytest_collection_modifyitems", "pytest_sessionstart"]


@pytest.fixture(params=["one", "two", "split"])
def instance(request: pytest.FixtureRequest, kit: Kit) -> Iterator[Instance]:
    made = on_tap(kit, 1 if request.param == "one" else 2, split=request.param == "split")
    made.start()
    yield made
    pids = {row["pid"] for row in made.status()["workers"]}
    assert None not in pids, f"a worker died: {made.logs()}"
    assert all(row["restarts"] == 0 for row in made.status()["workers"]), made.logs()
