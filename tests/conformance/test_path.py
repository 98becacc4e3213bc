# SPDX-License-Identifier: MulanPSL-2.0
"""A mode says whose sockets are on the stack: if they were not, its cases would compare the kernel with itself."""

from __future__ import annotations

from typing import Any

import pytest
from net.kit import until

from conformance.places import Places
from conformance.registry import MODES

# mode -> connections on the stack of the case's process, and of the other end
ON_STACK = {"server": (1, 0), "client": (1, 0), "both": (1, 1), "loopback": (1, 1), "mixed": (0, 0)}


@pytest.mark.parametrize("mode", MODES)
def test_the_sockets_of_a_mode_take_its_path(places: Places, mode: str) -> None:
    seen: list[dict[str, Any]] = []

    def look() -> None:
        def settled() -> bool:
            seen[:] = places.instance().status()["applications"]
            return tuple(_sockets(seen, role) for role in ("subject", "peer")) == ON_STACK[mode]

        until(settled, f"sockets on the stack {ON_STACK[mode]}, seen {seen}", 4)

    rig = places.stack(MODES[mode])
    rig.on_hold = look
    try:
        trace = rig.run("held-connection", mode)
    finally:
        rig.on_hold = lambda: None
    assert trace[-1].startswith("p.recv"), trace


def _sockets(applications: list[dict[str, Any]], role: str) -> int:
    """Return how many sockets processes of a role have on the stack: only one of them is in a case."""
    return sum(int(row["sockets"]) for row in applications if f"casehost {role}" in row["command"])
