# SPDX-License-Identifier: MulanPSL-2.0
"""redis-server under its own redis-benchmark."""

from __future__ import annotations

import csv
import io
from functools import partial

from kit.lab import Process

from bench import limits
from bench.lab import BenchError, Lab
from bench.programs.program import Load, Outcome, Program
from bench.side import KERNEL_LO as _KERNEL_LO
from bench.side import ONE_CORE, Side, Site
from bench.targets import SAME_HOST, TAP, TARGETS

PORT = 6379


def parse(text: str, test: str) -> dict[str, float]:
    """Return the figures of a test from redis-benchmark's --csv; BenchError if it is not there."""
    for row in csv.DictReader(io.StringIO(text)):
        if row.get("test") == test:
            return {key: float(value) for key, value in row.items() if key != "test"}
    raise BenchError(f"redis-benchmark printed no figure of {test}: {text[:200]!r}")


def _client(test: str, clients: int, pipeline: int, address: str, work: int) -> list[str]:
    return ["redis-benchmark", "-h", address, "-p", str(PORT), "-t", test.lower(), "-c", str(clients),
            "-P", str(pipeline), "-n", str(work), "--csv"]  # fmt: skip


def _run(test: str, clients: int, pipeline: int, side: Side, cpu: int, work: int) -> Outcome:
    figures = parse(side.call(_client(test, clients, pipeline, side.address, work), cpu), test)
    return Outcome(figures["rps"], work, {"p50_us": figures["p50_latency_ms"] * 1000,
                                          "p99_us": figures["p99_latency_ms"] * 1000})  # fmt: skip


def _limit(test: str, clients: int, pipeline: int, lab: Lab, manner: str, work: int) -> float:
    client = _client(test, clients, pipeline, limits.ANSWER_ADDRESS, work)
    return parse(limits.answer(lab, manner, client), test)["rps"]


def _load(test: str, clients: int, pipeline: int) -> Load:
    key = f"redis-{test.lower()}-c{clients}" + (f"-p{pipeline}" if pipeline > 1 else "")
    title = f"redis {test} -c {clients}" + (f" -P {pipeline}" if pipeline > 1 else "")
    limit = partial(_limit, test, clients, pipeline) if (TAP, key) in TARGETS else None
    run = partial(_run, test, clients, pipeline)
    return Load(key, title, "req/s", run, first=2000 * pipeline, most=2_000_000, limit=limit)


class Redis(Program):
    """One server; GET and SET with 1, 50 and 500 clients, one request and 16 at a time."""

    name = "redis"
    needs = ("redis-server", "redis-benchmark", "redis-cli")

    def loads(self) -> list[Load]:
        """Return the twelve loads, and the one with both ends on one core."""
        all_ = [_load(test, clients, pipeline) for test in ("GET", "SET") for clients in (50, 1, 500)
                for pipeline in (1, 16)]  # fmt: skip
        one_core = Load(
            "redis-get-c50-onecore", "redis GET -c 50, one core", "req/s", partial(_run, "GET", 50, 1),
            first=2000, most=2_000_000, placements=(ONE_CORE,), sides=(_KERNEL_LO, SAME_HOST),
        )  # fmt: skip
        return [*all_, one_core]

    def serve(self, site: Site) -> Process:
        """Start a server that keeps nothing on disk."""
        return site.spawn(
            ["redis-server", "--bind", site.address, "--port", str(PORT), "--save", "", "--appendonly", "no",
             "--protected-mode", "no", "--daemonize", "no", "--dir", str(site.lab.directory)]
        )  # fmt: skip

    def answers(self, side: Side) -> bool:
        """Ask for a PONG; have the key that GET asks for."""
        ask = ["timeout", "2", "redis-cli", "-h", side.address, "-p", str(PORT)]
        try:
            return side.call([*ask, "SET", "key:__rand_int__", "xxx"], side.cpus("spread")[1], 5).strip() == "OK"
        except BenchError:
            return False
