# SPDX-License-Identifier: MulanPSL-2.0
"""Network namespaces and veth pairs between them, as tests, conformance and bench all make them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

# No neighbour discovery of the kernel's among the packets.
_NO_IPV6 = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")


@dataclass(frozen=True)
class Namespace:
    """A network namespace."""

    name: str

    @classmethod
    def make(cls, name: str, *settings: str) -> Namespace:
        """Make a namespace with its loopback up, without IPv6, and with these sysctl settings."""
        namespace = cls(name)
        ip("netns", "add", name)
        try:
            namespace.run("ip", "link", "set", "lo", "up")
            namespace.run("sysctl", "-qw", *_NO_IPV6, *settings)
        except BaseException:
            namespace.remove()
            raise
        return namespace

    def remove(self) -> None:
        """Remove it, with the devices in it."""
        ip("netns", "del", self.name)

    def argv(self, *command: str) -> list[str]:
        """Return a command line that runs a command here; it replaces `ip`, so its pid is the command's."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = 30, env: Mapping[str, str] | None = None) -> str:
        """Run a command here to its end and return what it printed; AssertionError with all it said if it failed."""
        done = self.try_run(*command, timeout=timeout, env=env)
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def try_run(
        self, *command: str, timeout: float = 30, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, however it ends."""
        return subprocess.run(
            self.argv(*command), capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
        )

    def connect(self, device: str, other: Namespace, other_device: str, queues: int = 1) -> None:
        """Connect two namespaces by a veth pair that is up; it goes with its namespaces."""
        ends = ("numrxqueues", str(queues), "numtxqueues", str(queues))
        peer = ("peer", "name", other_device, "netns", other.name, *ends)
        self.run("ip", "link", "add", device, *ends, "type", "veth", *peer)
        for namespace, name in ((self, device), (other, other_device)):
            namespace.run("ip", "link", "set", "dev", name, "up")


def ip(*words: str) -> None:
    """Run ip; AssertionError with what it said if it failed."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
