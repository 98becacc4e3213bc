# SPDX-License-Identifier: MulanPSL-2.0
"""Waiting for a condition with a deadline: the only way in which anything here waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str,
    seconds: float = 10.0,
    *,
    look_every: float = 0.02,
    error: type[Exception] = AssertionError,
) -> T:
    """Wait until a condition holds and return what it returned; `error` when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise error(f"waited {seconds:g} s for {what}")
        time.sleep(look_every)
    return value
