# SPDX-License-Identifier: MulanPSL-2.0
"""What the kernel says of a process's rights: whose it is, what it may do, what it may ask."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FILTER = "2"  # SECCOMP_MODE_FILTER


@dataclass(frozen=True)
class Confinement:
    """One process. `capabilities` is what is in any of its sets, in hex, "none" if that is nothing."""

    user: str
    capabilities: str
    no_new_privs: bool
    seccomp: bool

    @classmethod
    def of(cls, pid: int, proc: Path = Path("/proc")) -> Self | None:
        """Look at a process; None if it is gone."""
        try:
            lines = (proc / str(pid) / "status").read_text(errors="replace").splitlines()
        except OSError:
            return None
        fields = dict(line.partition(":\t")[::2] for line in lines)
        try:
            uid, capabilities = int(fields["Uid"].split()[1]), 0
            for name in _SETS:
                capabilities |= int(fields[name], 16)
            return cls(
                user=_name(uid),
                capabilities=f"{capabilities:#x}" if capabilities else "none",
                no_new_privs=fields["NoNewPrivs"] == "1",
                seccomp=fields["Seccomp"] == _FILTER,
            )
        except (KeyError, ValueError, IndexError):
            return None  # another kernel's; then nothing is claimed

    def describe(self) -> str:
        """Say it in a few words."""
        capabilities = "no capabilities" if self.capabilities == "none" else f"capabilities {self.capabilities}"
        return f"user {self.user}, {capabilities}, seccomp {'on' if self.seccomp else 'off'}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
