# SPDX-License-Identifier: MulanPSL-2.0
"""The CPUs that workers would run on: isolation, frequency, clock."""

from __future__ import annotations

from collections.abc import Iterator

from gazelled.base.cpulist import format_cpus, parse_cpus
from gazelled.doctor.line import Line, ok, warning
from gazelled.doctor.machine import Machine
from gazelled.host.changes import HostValue

_CPU = "sys/devices/system/cpu"
_CLOCK = "sys/devices/system/clocksource/clocksource0"
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")  # read by a system call each time, or too coarse


def workers_cpus(machine: Machine) -> list[int]:
    """Return the CPUs of the plan."""
    return sorted({worker.cpu for worker in machine.plan.workers if worker.cpu is not None})


def look(machine: Machine) -> Iterator[Line]:
    """Look at what decides how evenly and how fast workers run."""
    yield from _cpuset(machine)
    yield from _siblings(machine)
    yield from _hugepages(machine)
    yield from _isolation(machine)
    yield from _governor(machine)
    yield from _clock(machine)


def _cpuset(machine: Machine) -> Iterator[Line]:
    """Say what may be used; what is wrong with that, the planner's findings say."""
    usable = format_cpus(cpu.id for cpu in machine.topology.usable)
    nodes = sorted({cpu.numa for cpu in machine.topology.cpus})
    yield ok(
        "cpus",
        f"{usable} may be used, on {len(nodes)} NUMA node{'s' * (len(nodes) != 1)}; "
        f"workers on {format_cpus(workers_cpus(machine)) or 'none'}",
    )


def _siblings(machine: Machine) -> Iterator[Line]:
    """Say what workers share a core with; that two workers do, the planner's findings say."""
    mine = set(workers_cpus(machine))
    beside = {other for cpu in machine.topology.cpus if cpu.id in mine for other in cpu.siblings} - mine
    yield ok(
        "siblings",
        f"CPUs {format_cpus(beside)} are hyper-threads of workers' cores: leave them idle for the shortest latency"
        if beside
        else "no worker shares its core with another CPU",
    )


def _hugepages(machine: Machine) -> Iterator[Line]:
    """Say what there is; that a plan lacks some, the planner's findings say."""
    pages = [each for each in machine.topology.hugepages if each.total]
    wanted = sum(each.pages for each in machine.plan.host.hugepages)
    there = ", ".join(f"{each.free} of {each.total} of {each.size_kb >> 10} MiB on node {each.numa}" for each in pages)
    yield ok("hugepages", f"free: {there or 'none'}; this plan wants {wanted or 'none'}")


def _isolation(machine: Machine) -> Iterator[Line]:
    isolated, mine = set(parse_cpus(machine.text(f"{_CPU}/isolated"))), set(workers_cpus(machine))
    shared = mine - isolated
    if isolated and shared:
        yield warning(
            "isolation",
            f"CPUs {format_cpus(isolated)} are isolated, and workers would run on {format_cpus(shared)}",
            "isolated CPUs stay idle, and workers share theirs with everything else",
            f'[[process]] cpus = "{format_cpus(isolated)}" in the configuration',
        )
    elif shared and machine.plan.stack.idle == "poll":
        yield warning(
            "isolation",
            f'idle = "poll", and CPUs {format_cpus(shared)} are not isolated',
            "whatever the kernel puts on those CPUs halves a worker's time while it runs",
            f"isolcpus={format_cpus(shared)} nohz_full={format_cpus(shared)} on the kernel's command line",
        )
    else:
        yield ok(
            "isolation",
            f"workers' CPUs are isolated ({format_cpus(isolated)})"
            if isolated
            else "no CPU is isolated, which workers that sleep do not need",
        )


def _governor(machine: Machine) -> Iterator[Line]:
    wrong = {}
    for cpu in workers_cpus(machine):
        governor = machine.text(f"{_CPU}/cpu{cpu}/cpufreq/scaling_governor")
        if governor not in ("", "performance"):
            wrong[cpu] = governor
    if not wrong:
        yield ok("governor", "the workers' CPUs do not slow down, as far as this host says")
        return
    command = f"cpupower -c {format_cpus(wrong)} frequency-set -g performance"
    files = (f"/{_CPU}/cpu{cpu}/cpufreq/scaling_governor" for cpu in wrong)
    yield warning(
        "governor",
        f"{', '.join(sorted(set(wrong.values())))} on CPUs {format_cpus(wrong)}",
        "a CPU that was idle answers the first packets at its lowest frequency",
        command,
        *(HostValue(file, "performance", before) for file, before in zip(files, wrong.values(), strict=True)),
    )


def _clock(machine: Machine) -> Iterator[Line]:
    current, available = machine.text(f"{_CLOCK}/current_clocksource"), machine.text(f"{_CLOCK}/available_clocksource")
    if current not in _SLOW_CLOCKS:
        yield ok("clock", current or "this host does not say")
        return
    fast = next((each for each in available.split() if each not in _SLOW_CLOCKS), None)
    file = f"/{_CLOCK}/current_clocksource"
    yield warning(
        "clock",
        f"clock source {current}",
        "each look at the clock is a system call, and a worker looks in every turn",
        f"echo {fast} > {file}" if fast else "tsc=reliable on the kernel's command line, if the machine's TSC is",
        *((HostValue(file, fast, current),) if fast else ()),
    )
