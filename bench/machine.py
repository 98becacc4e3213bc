# SPDX-License-Identifier: MulanPSL-2.0
"""The machine a number was measured on: a number without it means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def describe() -> dict[str, str]:
    """Return what matters of this machine."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": f"{len(models)} x {models[0] if models else platform.machine()}",
        "usable cpus": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "memory": f"{int(memory) >> 20} GiB",
        "kernel": platform.release(),
        "virtual": "yes" if any(" hypervisor" in line for line in _lines("/proc/cpuinfo")) else "no",
        "redis": _first_line("redis-server", "--version"),
        "gazelled": _first_line("git", "describe", "--always", "--dirty"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 else "unknown"
