# SPDX-License-Identifier: MulanPSL-2.0
"""`python -m bench`: redis by the kernel and by gazelled, in turns (A B A B), medians and spread.

Both sides run the same redis-server and are driven by the same redis-benchmark; see bench/redis_sides.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from net.kit import REPOSITORY
from rich.console import Console
from rich.table import Table

from bench.machine import describe
from bench.redis_sides import Load, Pinning, Side, Sides

console = Console(highlight=False)


@dataclass(frozen=True)
class Row:
    """One line of the comparison: every single measurement of both sides, in requests/s."""

    port: str
    load: str
    test: str
    kernel: list[float]
    gazelled: list[float]

    @property
    def ratio(self) -> float:
        """Return how many times the kernel's median gazelled's is."""
        return median(self.gazelled) / median(self.kernel)


def loads(requests: int) -> list[Load]:
    """Return the ways redis is driven."""
    return [
        Load("50 clients", 50, 1, requests),
        Load("1 client", 1, 1, requests // 10),
        Load("50 clients, 16 pipelined", 50, 16, requests * 5),
    ]


def measure(port: str, kernel: Side, gazelled: Side, every_load: list[Load], rounds: int) -> list[Row]:
    """Drive both sides in turns."""
    rows = []
    for load in every_load:
        found: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds):
            for side in (kernel, gazelled):
                rates = side.drive(load, 300)
                console.print(
                    f"  {port}: {load.name}, round {number + 1} of {rounds}, {side.name}: "
                    + ", ".join(f"{test} {rate:,.0f}" for test, rate in rates.items())
                )
                for test, rate in rates.items():
                    found.setdefault((side.name, test), []).append(rate)
        rows += [
            Row(port, load.name, test, found["kernel", test], found[gazelled.name, test]) for test in ("GET", "SET")
        ]
    return rows


def spread(values: list[float]) -> str:
    """Return the median, and how far the rest lies from it."""
    return f"{median(values):>9,.0f}  ({min(values):,.0f} .. {max(values):,.0f})"


def show(rows: list[Row]) -> None:
    """Print the comparison."""
    title = "redis, requests/s: median (least .. most)"
    table = Table("port", "load", "test", "kernel", "gazelled", "gazelled / kernel", title=title)
    for row in rows:
        table.add_row(row.port, row.load, row.test, spread(row.kernel), spread(row.gazelled), f"{row.ratio:.2f}")
    Console(width=max(console.width, 120), highlight=False).print(table)


def main() -> int:
    """Be `make bench`."""
    parser = argparse.ArgumentParser(prog="make bench", description="redis by the kernel and by gazelled, side by side")
    parser.add_argument("ports", nargs="*", metavar="PORT", help="tap, veth (both)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, in turns (3)")
    parser.add_argument("--requests", type=int, default=200_000, help="for 50 clients without pipelining (200000)")
    parser.add_argument("--workers", type=int, default=1, help="workers, and queues on the kernel's side (1)")
    parser.add_argument("--congestion", default="reno", help="congestion control of the kernel's ends (reno)")
    parser.add_argument("--pin-redis", default="", metavar="CPUS", help="taskset for redis-server (not pinned)")
    parser.add_argument("--pin-client", default="", metavar="CPUS", help="taskset for redis-benchmark (not pinned)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single measurement")
    options = parser.parse_args()
    ports = options.ports or ["tap", "veth"]
    if unknown := set(ports) - {"tap", "veth"}:
        parser.error(f"unknown port {', '.join(sorted(unknown))}: tap, veth")
    if os.geteuid() != 0:
        console.print("error: not root: namespaces and devices need it\nhint: sudo make bench")
        return 77

    begin = time.monotonic()
    os.chdir(REPOSITORY)
    machine = {
        **describe(),
        "workers": f"{options.workers}, each bound to a CPU, the first to CPU {min(os.sched_getaffinity(0))}",
        "pinning": f"redis-server {options.pin_redis or 'as `gazelled run` does; by the kernel none'}, "
        f"redis-benchmark {options.pin_client or 'none'}",
        "congestion control": options.congestion,
        "kernel's side": "redis-server and redis-benchmark in two namespaces on a veth pair",
    }
    for name, value in machine.items():
        console.print(f"  {name:<19} {value}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gazelled-bench-") as directory:
        sides = Sides(
            Path(directory), options.workers, options.congestion, Pinning(options.pin_redis, options.pin_client)
        )
        try:
            kernel = sides.make("kernel")
            for port in ports:
                rows += measure(port, kernel, sides.make(port), loads(options.requests), options.rounds)
        finally:
            sides.close()
    show(rows)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
        )
    console.print(f"{options.rounds} rounds of each side in turns, {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
