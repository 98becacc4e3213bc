# SPDX-License-Identifier: MulanPSL-2.0
"""A mode says whose sockets are on the stack: if they were not, its cases would compare the kernel with itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit.waiting import until

from conformance.places import Places, placed
from conformance.registry import MODES

# mode -> connections on the stack of the case's process, and of the other end
ON_STACK = {"server": (1, 0), "client": (1, 0), "both": (1, 1), "loopback": (1, 1), "mixed": (0, 0)}
# mode -> ends of connections the kernel has in the namespace
ON_KERNEL = {"server": 1, "client": 1, "both": 0, "loopback": 0, "mixed": 2}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Return a place of our own: here sockets are counted, and cases before us may have left some open."""
    with placed(tmp_path_factory.mktemp("path")) as made:
        yield made


def _hold(places: Places, mode: str, look: Callable[[], None]) -> None:
    """Look at something while a connection is held."""
    rig = places.stack(MODES[mode])
    rig.on_hold = look
    try:
        trace = rig.run("held-connection", mode)
    except AssertionError:
        rig.stop()  # the case is still held
        raise
    finally:
        rig.on_hold = lambda: None
    assert trace[-1].startswith("p.recv"), trace


@pytest.mark.parametrize("mode", MODES)
def test_the_sockets_of_a_mode_take_its_path(places: Places, mode: str) -> None:
    def look() -> None:
        listed = places.instance().home.run("ss", "-Htn", "state", "established").splitlines()
        assert len(listed) == ON_KERNEL[mode], listed

    _hold(places, mode, look)


@pytest.mark.parametrize("mode", MODES)
def test_status_counts_the_sockets_of_a_mode(places: Places, mode: str) -> None:
    def look() -> None:
        seen: list[dict[str, Any]] = []

        def settled() -> bool:
            seen[:] = places.instance().status()["applications"]
            return tuple(_sockets(seen, role) for role in ("subject", "peer")) == ON_STACK[mode]

        try:
            until(settled, f"sockets on the stack {ON_STACK[mode]}", 4)
        except AssertionError as error:
            raise AssertionError(f"{error}; status says {seen}") from None

    _hold(places, mode, look)


def _sockets(applications: list[dict[str, Any]], role: str) -> int:
    """Return how many sockets processes of a role have on the stack: only one of them is in a case."""
    return sum(int(row["sockets"]) for row in applications if f"casehost {role}" in row["command"])
