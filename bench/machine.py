# SPDX-License-Identifier: MulanPSL-2.0
"""The machine a number was measured on: a number without it means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from kit.lab import REPOSITORY

from bench.cpu import busy_share
from bench.lab import Lab

_PROGRAMS = {
    "redis": ("redis-server", "--version"),
    "nginx": ("nginx", "-v"),
    "iperf3": ("iperf3", "--version"),
    "sockperf": ("sockperf", "--version"),
    "memcached": ("memcached", "--version"),
    "wrk": ("wrk", "--version"),
}


def describe(lab: Lab) -> dict[str, str]:
    """Return what matters of this machine, and how the kernel's side is set up."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    inside = Lab.inside(lab.client)
    programs = {name: _first_line(*command) for name, command in _PROGRAMS.items()}
    return {
        "cpu": f"{len(models)} x {models[0] if models else platform.machine()}",
        "usable cpus": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "memory": f"{int(memory) >> 20} GiB",
        "virtual": "yes" if any(" hypervisor" in line for line in _lines("/proc/cpuinfo")) else "no",
        "kernel": platform.release(),
        "congestion control": _first_line(*inside, "sysctl", "-n", "net.ipv4.tcp_congestion_control"),
        "mitigations": mitigations(),
        "dpdk": _first_line("pkg-config", "--modversion", "libdpdk"),
        "gazelled": _first_line("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"),
        "programs": "; ".join(f"{name}: {said}" for name, said in programs.items()),
        "pinning": f"server CPU {lab.server_cpu}, client CPU {lab.client_cpu}, worker CPU {lab.worker_cpu}; "
        f"one core: server and client on CPU {lab.client_cpu}",
        "busy before": f"{busy_share(1.0):.0%} of the machine, by others",
    }


def mitigations(root: Path = Path("/sys/devices/system/cpu/vulnerabilities")) -> str:
    """Return what the kernel says of each hardware fault that concerns this machine."""
    said = {path.name: path.read_text().strip() for path in sorted(root.glob("*"))}
    return "; ".join(f"{name}: {text}" for name, text in said.items() if text != "Not affected") or "none needed"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "unknown"
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return said[0].strip() if said else "unknown"
