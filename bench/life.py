# SPDX-License-Identifier: MulanPSL-2.0
"""What an instance costs when nothing happens, and how long it takes when something does: start, packet, death."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.cpu import CpuMeter
from bench.instance import Instance, on_tap
from bench.lab import BenchError, Lab, until
from bench.side import SPREAD, Side, Site
from bench.stats import Cell, Sample
from bench.talker import PORT, Echo, Talker

WORKERS = 2
GAP_MS, _GAPS = 60, 25
_DEATH_LIMIT_MS = 10_000
_SETTLE_S = 1.0


def start_times(lab: Lab, repeat: int) -> tuple[Instance, Cell]:
    """Start an instance of two workers again and again; return it running, and the seconds each start took."""
    instance = on_tap(lab, "i", WORKERS, 90)
    samples = []
    for number in range(repeat):
        samples.append(Sample(instance.start()))
        if number + 1 < repeat:
            instance.stop()
    return instance, Cell("gazelled", f"{WORKERS} workers", tuple(samples))


def idle_cpu(instance: Instance, seconds: float) -> Cell:
    """Return the CPU an instance takes in which nothing happens, workers and supervisor, in percent of a core."""
    pids = [*instance.workers(), instance.supervisor()]
    time.sleep(_SETTLE_S)  # what start and the questions above have stirred up
    meter, before = CpuMeter(pids), time.monotonic()
    time.sleep(seconds)
    share = meter.seconds() / (time.monotonic() - before) * 100
    return Cell("gazelled", f"{len(pids) - 1} workers", (Sample(share),))


def first_packet(side: Side, repeat: int) -> Cell:
    """Return by how much an answer after a pause is later than one under load, in us of a round trip."""
    server_cpu, client_cpu = side.cpus(SPREAD)
    samples = []
    with Echo(side.site, side, server_cpu), Talker(side, 1, 1, client_cpu) as talker:
        for _ in range(repeat):
            busy = talker.ask("run 200")["p50_us"]
            idle = talker.ask(f"gap {_GAPS} {GAP_MS}")["p50_us"]
            samples.append(Sample(idle - busy, None, {"busy_us": busy, "idle_us": idle}))
    return Cell(side.key, SPREAD, tuple(samples))


def worker_death(lab: Lab, repeat: int) -> Cell:
    """Kill the only worker of a fresh instance; return the ms until a new connection to it is served again."""
    instance = on_tap(lab, "d", 1, 89)
    site = Site(lab, "d", instance)
    samples = []
    for _ in range(repeat):
        site.open()
        side = Side("d", site, lab.home, instance.address)
        with Echo(site, side, lab.server_cpu):
            samples.append(Sample(_death(instance, side)))
        instance.stop()
    return Cell("gazelled", "1 worker", tuple(samples))


def _death(instance: Instance, side: Side) -> float:
    lab = side.site.lab
    (worker,) = instance.workers()
    argv = [lab.compiled("probe"), side.address, str(PORT), str(_DEATH_LIMIT_MS)]
    probe = lab.spawn(argv, side.namespace, side.environment, lab.client_cpu, talk=True)
    try:
        killed = time.monotonic_ns()
        os.kill(worker, signal.SIGKILL)
        until(lambda: _gone(worker), "the killed worker to be gone", 5)
        answered, _ = probe.popen.communicate("go\n", _DEATH_LIMIT_MS / 1000 + 5)
        if not answered:
            raise BenchError(f"not served again after {_DEATH_LIMIT_MS} ms")
        return (int(answered) - killed) / 1e6
    finally:
        probe.stop()


def _gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def crowd(sides: dict[str, Side], repeat: int, tell: Callable[[str], None]) -> dict[str, Cell]:
    """Four servers and four clients at once, none pinned: sums of requests/s, and how evenly they were served."""
    found: dict[str, list[Sample]] = {key: [] for key in sides}
    failures: dict[str, str] = {}
    for _ in range(repeat):
        for key, side in sides.items():
            if key in failures:
                continue
            try:
                found[key].append(_crowd_once(side))
            except BenchError as error:
                failures[key] = str(error)
                tell(f"  crowd, {key}: {error}")
    return {key: Cell(key, "not pinned", tuple(samples), failures.get(key, "")) for key, samples in found.items()}


def _crowd_once(side: Side, servers: int = 4, run_ms: int = 1000) -> Sample:
    lab, site = side.site.lab, side.site
    with ExitStack() as stack:
        talkers: list[Talker] = []
        for number in range(servers):
            port = 6400 + number
            server = site.spawn(
                ["redis-server", "--bind", site.address, "--port", str(port), "--save", "", "--appendonly", "no",
                 "--protected-mode", "no", "--dir", str(lab.directory)]
            )  # fmt: skip
            stack.callback(server.stop)
            talkers.append(_connected(stack, side, port))
        for talker in talkers:
            talker.begin(f"run {run_ms}")
        rates = [talker.result()["rate"] for talker in talkers]
    return Sample(sum(rates), None, {"least_share": min(rates) / (sum(rates) / servers)})


def _connected(stack: ExitStack, side: Side, port: int) -> Talker:
    deadline = time.monotonic() + 10
    while True:
        try:
            return stack.enter_context(
                Talker(side, 12, 12, None, port=port, request="PING\r\n", response=len("+PONG\r\n"))
            )
        except BenchError:
            if time.monotonic() > deadline:
                raise
