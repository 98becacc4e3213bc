# SPDX-License-Identifier: MulanPSL-2.0
"""Connection scale: what fifty thousand idle connections cost the ten that are busy, and how much memory they take."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.lab import BenchError
from bench.side import SPREAD, Side
from bench.stats import Cell, Sample
from bench.talker import PORT, Echo, Talker

BUSY = 10
_RUN_MS = 400
_FILES = 70_000
_CONNECT_S = 60.0
_SPARE_FILES = 1000  # of a process, for what is no connection


@dataclass(frozen=True)
class Memory:
    """Bytes in use: private to the workers, shared between processes, and the kernel's own for sockets and files."""

    workers: int
    shared: int
    kernel: int

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.workers - other.workers, self.shared - other.shared, self.kernel - other.kernel)

    def per(self, connections: int) -> dict[str, float]:
        """Return KB per connection."""
        return {
            "worker_kb": self.workers / connections / 1000,
            "shared_kb": self.shared / connections / 1000,
            "kernel_kb": self.kernel / connections / 1000,
        }


def _kilobytes(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def memory(workers: list[int], proc: Path = Path("/proc")) -> Memory:
    """Look at memory now. Shared memory and slabs are the whole machine's: only differences mean anything."""
    private = sum(_kilobytes(proc / str(pid) / "status", "RssAnon") for pid in workers)
    meminfo = proc / "meminfo"
    return Memory(private, _kilobytes(meminfo, "Shmem"), _kilobytes(meminfo, "Slab"))


def raise_file_limit() -> int:
    """Allow this process and what it starts as many files as the run needs, or as it may; return how many that is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(hard, _FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return wanted


def split(connections: int, most: int) -> list[int]:
    """Share connections out evenly to as few processes as may hold them: each a client with a server of its own."""
    processes = -(-connections // most)
    return [(connections + number) // processes for number in range(processes)]


def _rates(talker: Talker, repeat: int) -> list[float]:
    talker.ask(f"run {_RUN_MS // 4}")
    return [talker.ask(f"run {_RUN_MS}")["rate"] for _ in range(repeat)]


@dataclass(frozen=True)
class Scale:
    """One side's figures. `alone`: the busy ones by themselves, before and after; `among`: with all the idle ones."""

    connections: int
    alone: Cell
    among: Cell
    share: Cell  # in percent, among / alone
    memory: Cell  # KB per connection, workers and shared


def measure(side: Side, connections: int, repeat: int, tell: Callable[[str], None]) -> Scale:
    """Measure one side; BenchError if the connections cannot be made."""
    server_cpu, client_cpu = side.cpus(SPREAD)
    shares = split(connections, raise_file_limit() - _SPARE_FILES)
    with ExitStack() as servers:
        for port in range(PORT, PORT + len(shares)):
            servers.enter_context(Echo(side.site, side, server_cpu, port))
        with Talker(side, BUSY, BUSY, client_cpu) as talker:
            alone = _rates(talker, repeat)
        before = memory(side.site.stack_pids())
        with ExitStack() as clients:
            talkers = [
                clients.enter_context(Talker(side, share, BUSY, client_cpu, _CONNECT_S, PORT + number))
                for number, share in enumerate(shares)
            ]
            grown = (memory(side.site.stack_pids()) - before).per(connections)
            took = sum(talker.connected["seconds"] for talker in talkers)
            among = _rates(talkers[0], repeat)
        with Talker(side, BUSY, BUSY, client_cpu) as talker:
            alone += _rates(talker, repeat)
    tell(f"{connections:,} connections, {side.key}: made in {took:.1f} s ({connections / took:,.0f}/s); " + ", ".join(
        f"{key.removesuffix('_kb')} {value:.2f} KB" for key, value in grown.items()))  # fmt: skip
    alone_cell = _cell(side, [Sample(rate) for rate in alone])
    if not alone_cell.median:
        raise BenchError("no throughput")
    ratios = [Sample(rate / alone_cell.median * 100, None, {"rate": rate}) for rate in among]
    total = Sample(grown["worker_kb"] + grown["shared_kb"], None, grown | {"connects_per_s": connections / took})
    return Scale(
        connections,
        alone_cell,
        _cell(side, [Sample(rate) for rate in among]),
        _cell(side, ratios),
        _cell(side, [total]),
    )


def bursts(sides: Sequence[Side], connects: int, repeat: int) -> list[Cell]:
    """Begin so many connects at once, in turns on every side; the ms until each has had an answer to a request."""
    shares = split(connects, raise_file_limit() - _SPARE_FILES)
    cells = [Cell(side.key, SPREAD) for side in sides]
    with ExitStack() as servers:
        for side in sides:
            for number in range(len(shares)):
                servers.enter_context(Echo(side.site, side, side.cpus(SPREAD)[0], PORT + number))
        for _ in range(repeat):
            for number, (side, cell) in enumerate(zip(sides, cells, strict=True)):
                try:
                    cells[number] = replace(cell, samples=(*cell.samples, _burst(side, shares)))
                except BenchError as error:
                    cells[number] = replace(cell, failure=f"{side.key}: {error}")
    return cells


def _burst(side: Side, shares: Sequence[int]) -> Sample:
    client_cpu = side.cpus(SPREAD)[1]
    with ExitStack() as clients:
        talkers = [
            clients.enter_context(Talker(side, share, share, client_cpu, _CONNECT_S, PORT + number, burst=True))
            for number, share in enumerate(shares)
        ]
        began = time.monotonic()
        for talker in talkers:
            talker.begin("connect")
        for talker in talkers:
            talker.result(_CONNECT_S)
        connected = time.monotonic()
        for talker, share in zip(talkers, shares, strict=True):
            talker.begin(f"count {share}")
        for talker in talkers:
            talker.result(_CONNECT_S)
        took = time.monotonic() - began
    return Sample(took * 1000, None, {"connected_ms": (connected - began) * 1000})


def _cell(side: Side, samples: list[Sample]) -> Cell:
    return Cell(side.key, SPREAD, tuple(samples))
