# SPDX-License-Identifier: MulanPSL-2.0
"""Which metrics there are. Names follow Prometheus's conventions: gazelle_, base units, _total for what only grows.

The counters of the workers come from their one description. Labels are bounded: `stack` is the instance ("instance" is
Prometheus's own word), `queue` and `worker` are of at most 128 workers, `reason` is one of a fixed list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gazelled.pages.counters import COUNTERS, Counter


@dataclass(frozen=True)
class Family:
    """One metric: its name, kind and meaning, and the labels it has beside `stack`."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()


_WORKER = ("queue", "worker")


def of_counter(counter: Counter) -> Family:
    """Return the metric of a worker's counter."""
    if counter.kind == "gauge":
        return Family(f"gazelle_worker_{counter.name}", "gauge", counter.meaning, _WORKER)
    name = f"gazelle_worker_{counter.name.removesuffix('_total')}_total"
    return Family(name, "counter", counter.meaning, _WORKER)


BUILD = Family("gazelle_build_info", "gauge", "1, with the version of gazelled as a label", ("version",))
SUPERVISED = Family("gazelle_supervisor_up", "gauge", "1 if a supervisor watches the workers, else 0")
RUNNING = Family("gazelle_worker_up", "gauge", "1 if the worker runs, else 0", _WORKER)
RESTARTS = Family(
    "gazelle_worker_restarts_total", "counter", "times the worker was started again after it had died", _WORKER
)
CPU = Family("gazelle_worker_cpu_seconds_total", "counter", "CPU time that the worker's process has used", _WORKER)
MBUFS = Family("gazelle_worker_mbufs", "gauge", "packet buffers the worker has in all", _WORKER)
PROGRAMS = Family("gazelle_programs", "gauge", "programs attached now")
STACK_SOCKETS = Family("gazelle_stack_sockets", "gauge", "sockets of attached programs that the stack serves now")
KERNEL_SOCKETS = Family(
    "gazelle_kernel_sockets", "gauge", "sockets of attached programs that the kernel serves, by reason", ("reason",)
)
UPLINK = Family(
    "gazelle_uplink_packets_total",
    "counter",
    "packets at the uplink, by what became of them: to the stack (taken), of the kernel's connections (kept), to the "
    "kernel because no worker lived (fallen_back), dropped because no worker lived (silenced)",
    ("fate",),
)

OF_COUNTERS = {counter.name: of_counter(counter) for counter in COUNTERS}
FAMILIES = (
    BUILD, SUPERVISED, RUNNING, RESTARTS, CPU, MBUFS, *OF_COUNTERS.values(), PROGRAMS, STACK_SOCKETS, KERNEL_SOCKETS,
    UPLINK,
)  # fmt: skip
