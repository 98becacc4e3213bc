# SPDX-License-Identifier: MulanPSL-2.0
"""A fake host with NICs and gazelled on it, for tests of bind and unbind.

The host has eth0 (default route), eth1 (free, with an address, routes and an MTU of its own), eth2 (an ssh session) and
a function 0000:05:00.0 without a driver.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_kernel import FOREVER, FakeKernel

from gazelled import cli
from gazelled.base.wait import wait_for
from gazelled.nics import binding

GLOBAL = {"scope": "global", "valid_life_time": FOREVER, "preferred_life_time": FOREVER}
ETH1 = "0000:03:00.0"
BARE = "0000:05:00.0"


def make_host(root: Path) -> FakeKernel:
    kernel = FakeKernel(root)
    kernel.create()
    kernel.add_nic("0000:02:00.0", "igb", "eth0", "52:00:00:00:00:02", iommu_group="1")
    kernel.add_nic(ETH1, "e1000e", "enp3s0", "52:00:00:00:00:03", iommu_group="2")
    kernel.add_nic("0000:04:00.0", "igb", "eth2", "52:00:00:00:00:04", iommu_group="3")
    kernel.add_nic(BARE, "igb", "eth9", "52:00:00:00:00:05", iommu_group="4")
    kernel.unbind(BARE)
    kernel.link_set("enp3s0", "name", "eth1")
    kernel.link_set("eth1", "mtu", "1400")
    kernel.link_set("eth1", "address", "52:00:00:00:11:11")
    addresses = {
        "eth0": [("192.0.2.5", 24)],
        "eth1": [("10.1.0.5", 24), ("10.1.0.6", 24), ("fd01::5", 64)],
        "eth2": [("10.2.0.5", 24)],
    }
    for name, given in addresses.items():
        kernel.link_set(name, "up", "")
        for local, length in given:
            family = {"family": "inet6"} if ":" in local else {"family": "inet", "label": name}
            kernel.add_address(name, {**family, "local": local, "prefixlen": length, **GLOBAL})
    kernel.add_route("eth0", {"family": "-4", "dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "flags": []})
    static = {"protocol": "static", "dev": "eth1", "flags": []}
    far = {"family": "-4", "dst": "10.8.0.0/16", "gateway": "10.1.0.1", "metric": 7, "table": "99"}
    kernel.add_route("eth1", {**far, **static})
    kernel.add_route("eth1", {"family": "-4", "dst": "10.9.0.0/16", "scope": "link", **static})
    # Listed before the route its gateway is reached by, so it cannot be put back in the order of the list.
    kernel.add_route("eth1", {"family": "-4", "dst": "10.7.0.0/16", "gateway": "10.9.0.1", **static})
    kernel.add_route("eth1", {"family": "-6", "dst": "fd08::/64", "gateway": "fd01::1", "metric": 1024, **static})
    (root / "proc/net/tcp").write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 00000000:0016 00000000:0000 0A\n"
        "   1: 0500020A:0016 0901020A:9C40 01\n"  # 10.2.0.5:22 from 10.2.1.9, established
        "   2: 0500010A:1F90 0901010A:9C40 01\n"  # an established connection that is not ssh
    )
    return kernel


@dataclass
class Box:
    """A fake host, the commands that change it, and gazelled on it."""

    kernel: FakeKernel
    directory: Path
    environment: pytest.MonkeyPatch

    @property
    def run_root(self) -> Path:
        return self.directory / "run"

    def state(self) -> dict[str, str]:
        """Return the whole host, gazelled's run directory included."""
        left = {f"run/{path.relative_to(self.run_root)}": "left" for path in self.run_root.glob("**/*")}
        return self.kernel.snapshot() | left

    def unordered(self) -> dict[str, object]:
        """Return the whole host, but for the order in which its interfaces have addresses and routes."""
        network = {
            name: {kind: sorted(entries, key=repr) for kind, entries in interface.items()}
            for name, interface in self.kernel.network().items()
        }
        return {**self.state(), "network.json": network}

    def trouble(self, what: str) -> None:
        """Let the fake commands misbehave, counting from now."""
        (self.directory / "count").unlink(missing_ok=True)
        self.environment.setenv("FAKE_TROUBLE", what)

    def troubled(self) -> bool:
        """Say whether the trouble was met."""
        count = self.directory / "count"
        steps = count.stat().st_size if count.exists() else 0
        return steps >= int(os.environ["FAKE_TROUBLE"].partition(":")[2])

    def recover(self) -> list[str]:
        """Do what `gazelled recover` does for NICs; an orphaned command goes on only when that has begun."""
        go, gone = self.directory / "count.go", self.directory / "count.gone"
        orphaned = os.environ["FAKE_TROUBLE"].startswith("orphan") and self.troubled()
        self.trouble("none:0")
        begun = threading.Timer(0.05, go.touch)
        begun.start()
        try:
            return binding.recover(self.run_root, lambda line: None)
        finally:
            begun.join()
            if orphaned:
                wait_for(gone.exists, 10, "the orphaned command did not end")
                gone.unlink()
            go.unlink()

    def gazelled(self, *words: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
        """Run a command line in a process of its own; return its status (-9 when killed) and what it said on stderr."""
        said = self.directory / "said"
        pid = os.fork()
        if pid == 0:
            try:
                for target in (1, 2):
                    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                if before is not None:
                    before()
                status = cli.run([*words])
                sys.stderr.flush()
                os._exit(status)
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), said.read_text()
