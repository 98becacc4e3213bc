# SPDX-License-Identifier: MulanPSL-2.0
"""The machine that is looked at: the real one, or below a root of its own, as tests show it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from gazelled.host.sysfs import Host
from gazelled.planning.plan import Plan
from gazelled.planning.topology import Topology


@dataclass(frozen=True)
class Machine:
    """A host, its topology, and the plan of the configuration for it."""

    host: Host
    topology: Topology
    plan: Plan
    run_root: Path

    def text(self, path: str) -> str:
        """Return a small file of the host without the blanks around it, empty if it cannot be read."""
        try:
            return (self.host.root / path).read_text(errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: str) -> int | None:
        """Return the number in a file, None if there is none."""
        text = self.text(path)
        return int(text) if text.lstrip("-").isdigit() else None

    def exists(self, path: str) -> bool:
        """Tell whether a path of the host exists."""
        return (self.host.root / path).exists()

    def names(self, path: str) -> list[str]:
        """Return what is in a directory of the host."""
        try:
            return sorted(os.listdir(self.host.root / path))
        except OSError:
            return []

    def account(self, file: str, name: str) -> bool:
        """Tell whether etc/passwd or etc/group has a name; of the real host whatever its name service knows."""
        if any(line.startswith(f"{name}:") for line in self.text(f"etc/{file}").splitlines()):
            return True
        if not self.host.is_real:
            return False
        import grp
        import pwd

        try:
            (pwd.getpwnam if file == "passwd" else grp.getgrnam)(name)
        except KeyError:
            return False
        return True

    def free_bytes(self, path: Path) -> int:
        """Return what is free where a path is or would be made; a fake host says it in a file beside its root."""
        while not path.exists():
            path = path.parent
        if not self.host.is_real and (stated := self.number("free_bytes")) is not None:
            return stated
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def opens(self, family: int, kind: int) -> bool:
        """Tell whether the kernel makes sockets of a family; a fake host lists those it does in proc/net/protocols."""
        if not self.host.is_real:
            return any(line.startswith("XDP ") for line in self.text("proc/net/protocols").splitlines())
        try:
            socket.socket(family, kind).close()
        except PermissionError:
            return True  # it exists, and root may
        except OSError:
            return False
        return True
