# SPDX-License-Identifier: MulanPSL-2.0
"""What this machine allows, whoever does it: programs that do the least there is, beside the figures they bound."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.lab import Lab

ANSWER_ADDRESS = "192.0.2.2"  # of tap_answer's server
MANNERS = {"sleep": "if it sleeps when there is nothing", "spin": "if it never sleeps"}


def wake(lab: Lab) -> dict[str, dict[str, float]]:
    """Return what a wake-up costs whoever sleeps, between two CPUs and on one: an eventfd's round trips in us."""

    def look(a: int, b: int) -> dict[str, float]:
        said: dict[str, float] = json.loads(lab.call([lab.compiled("wake"), str(a), str(b)], lab.home))
        return said

    return {
        "two cores": look(lab.server_cpu, lab.client_cpu),
        "one core": look(lab.client_cpu, lab.client_cpu),
    }


def relay(lab: Lab, gap_ms: int) -> dict[str, float]:
    """Return what a first packet costs the least that a worker and a program could do for it: round trips in us."""
    argv = [lab.compiled("tap_relay"), str(lab.server_cpu), str(lab.client_cpu), str(gap_ms)]
    said: dict[str, float] = json.loads(lab.call(argv, lab.home))
    return said


def answer(lab: Lab, manner: str, client: Sequence[str]) -> str:
    """Run a client of redis against a server on a tap that costs next to nothing; return what the client printed."""
    argv = [lab.compiled("tap_answer"), str(lab.server_cpu), str(lab.client_cpu), manner, *client]
    return lab.call(argv, lab.home)
