# SPDX-License-Identifier: MulanPSL-2.0
"""The kernel: its version, what it can do for the configured port, and the settings that the stack depends on."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator

from gazelled.doctor.line import Line, ok, problem, warning
from gazelled.doctor.machine import Machine
from gazelled.host import netlink
from gazelled.host.changes import HostValue

_OLDEST = (5, 14)  # SO_NETNS_COOKIE, by which a worker knows whose kernel vouches for a socket
_AF_XDP = 44
_NR_OPEN = 1 << 20
_PIDS = 256  # supervisor, workers, and their programs' children


def look(machine: Machine) -> Iterator[Line]:
    """Look at the kernel."""
    yield from _version(machine)
    yield from _confinement(machine)
    yield from _port(machine)
    yield from _settings(machine)


def _version(machine: Machine) -> Iterator[Line]:
    release = machine.text("proc/sys/kernel/osrelease")
    found = re.match(r"(\d+)\.(\d+)", release)
    oldest = ".".join(map(str, _OLDEST))
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        yield problem(
            "kernel",
            f"Linux {release}; at least {oldest}",
            "workers cannot tell one network namespace from another, and do not start",
            "apt install linux-image-amd64, then reboot",
        )
    else:
        yield ok("kernel", f"Linux {release}")
    arch = machine.text("proc/sys/kernel/arch")
    if arch not in ("", "x86_64"):
        yield problem("kernel", f"{arch}; only x86_64 is served", "nothing can be started", "another machine")


def _confinement(machine: Machine) -> Iterator[Line]:
    actions = machine.text("proc/sys/kernel/seccomp/actions_avail").split()
    if "kill_process" in actions:
        yield ok("seccomp", "workers are kept to the system calls they need")
    else:
        yield problem(
            "seccomp",
            "this kernel has no seccomp filters",
            "workers do not start unconfined",
            "a kernel with CONFIG_SECCOMP_FILTER=y",
        )


def _port(machine: Machine) -> Iterator[Line]:
    device = machine.plan.device
    if device.driver == "tap":
        if machine.exists("dev/net/tun"):
            yield ok("tap", "/dev/net/tun is there")
        else:
            yield problem("tap", "/dev/net/tun: not there", "no tap can be made, and `start` refuses", "modprobe tun")
    elif device.driver == "af_xdp":
        if machine.opens(_AF_XDP, socket.SOCK_RAW):
            yield ok("af_xdp", "the kernel has AF_XDP sockets")
        else:
            yield problem(
                "af_xdp",
                "the kernel has no AF_XDP sockets",
                "driver af_xdp cannot open a queue",
                'a kernel with CONFIG_XDP_SOCKETS=y, or driver = "tap"',
            )
    elif device.driver == "pci":
        yield from _vfio(machine)
    if device.driver == "af_xdp" or device.uplink is not None:
        locked = machine.text("sys/kernel/security/lockdown")
        if "[confidentiality]" in locked:
            yield problem(
                "bpf",
                "the kernel is locked down for confidentiality",
                "BPF programs may not read packets",
                "lockdown=integrity on the kernel's command line",
            )
        else:
            yield ok("bpf", "BPF programs may be loaded by root")
    if device.uplink is not None and not device.past_firewall and machine.host.is_real and os.geteuid() == 0:
        filters = netlink.input_filters()
        if filters:
            yield problem(
                "firewall",
                f"this host filters what comes in ({', '.join(filters)})",
                "the stack's packets do not pass its rules: `start` refuses",
                "gazelled start --past-firewall, if all who reach the interface may reach those ports",
            )


def _vfio(machine: Machine) -> Iterator[Line]:
    if not machine.names("sys/kernel/iommu_groups"):
        yield warning(
            "iommu",
            "this host has no IOMMU groups",
            "the NIC can write to any memory, and workers stay root",
            "intel_iommu=on on the kernel's command line, and the IOMMU on in the firmware",
        )
    else:
        yield ok("iommu", "on")
    if machine.exists("sys/bus/pci/drivers/vfio-pci"):
        yield ok("vfio", "vfio-pci is loaded")
    else:
        yield warning(
            "vfio", "vfio-pci is not loaded", "`start` and `bind` load it, if the kernel has it", "modprobe vfio-pci"
        )


def _settings(machine: Machine) -> Iterator[Line]:
    most = machine.number("proc/sys/fs/nr_open")
    if most is not None and most < _NR_OPEN:
        yield warning(
            "sysctl fs.nr_open",
            f"{most:,}; workers want {_NR_OPEN:,}",
            "a worker holds descriptors for each attached program: fewer programs can attach",
            f"sysctl -w fs.nr_open={_NR_OPEN}",
            HostValue("/proc/sys/fs/nr_open", str(_NR_OPEN), str(most)),
        )
    else:
        yield ok("sysctls", "fs.nr_open leaves room")
    yield from _limits(machine)


def _limits(machine: Machine) -> Iterator[Line]:
    limits = {}
    for line in machine.text("proc/self/limits").splitlines():
        name, *values = re.split(r"\s{2,}", line.strip())
        if len(values) >= 2:
            limits[name] = values[1]  # the hard one
    short = [
        (name, limits[name], least)
        for name, least in (("Max open files", 4096), ("Max processes", _PIDS))
        if limits.get(name, "unlimited").isdigit() and int(limits[name]) < least
    ]
    for name, has, least in short:
        key = {"Max open files": "nofile", "Max processes": "nproc"}[name]
        yield warning(
            f"limit {key}",
            f"at most {has}; {least} are little",
            "programs started from here, and an instance started without root, soon have no more",
            f"{key} in /etc/security/limits.conf (of a service: Limit{key.upper()}=)",
        )
    pids = machine.number(f"sys/fs/cgroup{_cgroup(machine)}/pids.max")
    if pids is not None and pids < _PIDS:
        yield warning(
            "limit pids",
            f"the cgroup may have {pids} processes",
            "programs cannot fork, workers not start",
            "TasksMax= of the service, or pids.max of the container",
        )
    elif not short:
        yield ok("limits", "descriptors and processes suffice")


def _cgroup(machine: Machine) -> str:
    for line in machine.text("proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:].rstrip("/")
    return ""
