# SPDX-License-Identifier: MulanPSL-2.0
"""The two sides of the comparison: the same redis-server and the same load generator, only the path differs.

kernel     namespace S: redis, kernel 10.93.0.2 ----- veth ----- namespace C: redis-benchmark
tap        one namespace: redis, stack 10.91.0.2 ---- tap ------ redis-benchmark, kernel 10.91.0.1
veth       namespace S: redis, stack 10.92.0.2 ------ veth ----- namespace C: redis-benchmark
"""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

from net.instance import on_tap, on_veth
from net.kit import Kit, Namespace, Process, until

PORT = "6379"


@dataclass(frozen=True)
class Pinning:
    """Which CPUs redis and its clients may use; empty: whoever decides otherwise, `gazelled run` or the scheduler."""

    redis: str
    client: str

    @staticmethod
    def command(cpus: str) -> list[str]:
        """Return what keeps a command on CPUs."""
        return ["taskset", "-c", cpus] if cpus else []


@dataclass(frozen=True)
class Load:
    """One way to drive redis."""

    name: str
    clients: int
    pipeline: int
    requests: int


@dataclass(frozen=True)
class Side:
    """One redis, ready to be driven."""

    name: str
    client: Namespace
    address: str
    pinning: Pinning

    def drive(self, load: Load, seconds: float) -> dict[str, float]:
        """Return requests/s by test."""
        out = self.client.run(
            *Pinning.command(self.pinning.client), "redis-benchmark", "-h", self.address, "-p", PORT, "-t", "get,set",
            "-c", str(load.clients), "-P", str(load.pipeline), "-n", str(load.requests), "--csv", timeout=seconds,
        )  # fmt: skip
        rates = {row["test"]: float(row["rps"]) for row in csv.DictReader(io.StringIO(out))}
        if set(rates) != {"GET", "SET"}:
            raise RuntimeError(f"redis-benchmark said:\n{out}")
        return rates


class Sides:
    """Makes sides; close() removes them."""

    def __init__(self, directory: Path, workers: int, congestion: str, pinning: Pinning) -> None:
        self.directory, self.workers, self.congestion, self.pinning = directory, workers, congestion, pinning
        self._kits: list[Kit] = []
        self._numbers = itertools.count()

    def close(self) -> None:
        """Remove everything."""
        for kit in reversed(self._kits):
            kit.close()

    def make(self, name: str) -> Side:
        """Make "kernel", "tap" or "veth", with its redis running."""
        directory = self.directory / f"{next(self._numbers)}-{name}"
        directory.mkdir()
        kit = Kit(directory)
        self._kits.append(kit)
        return self._kernel(kit) if name == "kernel" else self._stack(kit, name)

    def _kernel(self, kit: Kit) -> Side:
        home, client = kit.namespace("s"), kit.namespace("c")
        kit.veth(home, "gzs", client, "gzc", self.workers)
        for namespace, device, address in ((home, "gzs", "10.93.0.2/24"), (client, "gzc", "10.93.0.1/24")):
            namespace.run("ip", "address", "add", address, "dev", device)
            self._set_congestion(namespace)
        return self._with_redis("kernel", kit, home, client, "10.93.0.2", [])

    def _stack(self, kit: Kit, name: str) -> Side:
        instance = (on_tap if name == "tap" else on_veth)(kit, self.workers)
        self._set_congestion(instance.client)
        instance.start()
        return self._with_redis(name, kit, instance.home, instance.client, instance.address, instance.attached())

    def _set_congestion(self, namespace: Namespace) -> None:
        namespace.run("sysctl", "-qw", f"net.ipv4.tcp_congestion_control={self.congestion}")

    def _with_redis(
        self, name: str, kit: Kit, home: Namespace, client: Namespace, address: str, launcher: list[str]
    ) -> Side:
        redis = kit.spawn(
            home, *launcher, *Pinning.command(self.pinning.redis), "redis-server", "--bind", address, "--port", PORT,
            "--save", "", "--appendonly", "no", "--protected-mode", "no", "--dir", str(kit.directory),
        )  # fmt: skip
        until(lambda: self._answers(redis, client, address), f"redis of {name} to answer", 15)
        return Side(name, client, address, self.pinning)

    @staticmethod
    def _answers(redis: Process, client: Namespace, address: str) -> bool:
        if not redis.alive:
            raise RuntimeError(f"redis-server ended:\n{redis.output()}")
        ping = client.try_run("timeout", "2", "redis-cli", "-h", address, "-p", PORT, "ping")
        return ping.stdout.strip() == "PONG"
