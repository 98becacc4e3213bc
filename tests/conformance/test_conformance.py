# SPDX-License-Identifier: MulanPSL-2.0
"""Every case in every mode: what a program on the stack sees is what it would see on the kernel.

kernel   [case] ---veth or loopback--- [other end]     the same script,
stack    [case] ---tap or same host--- [other end]     the same trace
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.compare import read, verdict
from conformance.places import Places
from conformance.registry import MODES, Case, load

TABLE = read()
ITEMS = [(case, mode) for case in load().values() for mode in case.modes]


RUNS = 3  # a difference that does not come again is one of time: told in the summary, but no failure


@pytest.mark.parametrize(("case", "mode"), ITEMS, ids=[f"{case.name}-{mode}" for case, mode in ITEMS])
def test_the_stack_does_as_the_kernel(
    places: Places, case: Case, mode: str, record_property: Callable[[str, object], None]
) -> None:
    if lacks := sorted(case.needs & TABLE.not_yet.keys()):
        pytest.skip(f"not yet on the stack: {', '.join(lacks)}")
    for left in reversed(range(RUNS)):
        kernel, stack = places.run(case.name, MODES[mode])
        said, text = verdict(case.name, mode, kernel, stack, TABLE)
        if said in ("same", "explained") or not left:
            break
        record_property("unsteady", f"{case.name} [{mode}]\n{text}")
    if said == "explained":
        pytest.xfail(f"explained: {text}")
    assert said == "same", f"{case.name} [{mode}]\n{text}"
