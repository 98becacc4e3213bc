# SPDX-License-Identifier: MulanPSL-2.0
"""A plan as a person reads it: a table per process, the findings, and a last line with the sum and the next step."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gazelled.base.cpulist import format_cpus
from gazelled.base.run_root import run_root
from gazelled.base.sizes import iec
from gazelled.instance.access import attachers
from gazelled.pages.run_memory import run_dir_bytes
from gazelled.planning.findings import SEVERITIES, Finding
from gazelled.planning.plan import GroupPlan, Plan, WorkerPlan
from gazelled.planning.topology import Topology

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_HEADER = ("queue", "role", "worker", "CPU", "core/socket", "node", "pool", "mbufs", "memory")
_RIGHT = ("queue", "CPU", "node", "mbufs", "memory")
_SHOWN = 12  # findings of one severity; the rest is counted


def print_plan(plan: Plan, topology: Topology, next_step: str) -> None:
    """Print a plan on stdout; `next_step` is the command that carries it out."""
    console = Console(highlight=False, soft_wrap=True)
    for line in _heading(plan):
        console.print(line)
    for group in plan.groups:
        console.print()
        console.print(_table(plan, group, topology))
    if plan.findings:
        console.print()
    for line in _findings(plan.findings):
        console.print(line)
    console.print()
    console.print(_summary(plan, next_step))


def _heading(plan: Plan) -> Iterable[str]:
    device, network = plan.device, plan.network
    where = f"{device.driver} {device.name}".strip() + (" (made by start, removed by stop)" if device.embedded else "")
    yield f"[bold]instance {escape(plan.instance)}[/bold]: port {escape(where)}, MTU {device.mtu}"
    peer = f", host's side {network.host_peer}" if network.host_peer else ""
    gateway = f", gateway {network.gateway}" if network.gateway else ""
    yield f"stack address {network.host_addr}/{network.prefix}{peer}{gateway}"
    if network.host_addr6:
        peer = f", host's side {network.host_peer6}" if network.host_peer6 else ""
        gateway = f", gateway {network.gateway6}" if network.gateway6 else ""
        yield f"stack address {network.host_addr6}/64{peer}{gateway}"
    yield f"may attach: {escape(attachers(plan.security))}"
    for step in plan.host.bind:
        yield f"NIC {step.pci}: bound to {step.driver} by start, given back by stop"
    for pages in plan.host.hugepages:
        yield f"hugepages on node {pages.numa}: {pages.pages} of {iec(pages.size_kb << 10)}, {pages.free} are free"
    need = run_dir_bytes(len(plan.workers), len(plan.groups))
    yield f"run directory {escape(str(run_root() / plan.instance))}: {iec(need)}, more as connections come"
    for group in plan.groups if plan.stack.app_bind_numa else ():
        if group.app_cpus:
            yield f"applications of process {group.process_index}: run on CPUs {format_cpus(group.app_cpus)}"


def _table(plan: Plan, group: GroupPlan, topology: Topology) -> Text:
    form = "send/recv split" if plan.separate_send_recv else "one worker per CPU"
    rows = [_HEADER, *(_row(plan.workers[queue_id], topology) for queue_id in group.queue_ids)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for name, cell, width in zip(_HEADER, row, widths, strict=True)
        )
        for row in rows
    ]
    # rich's own Table takes a second for a thousand workers.
    return Text.assemble(
        (f"process {group.process_index} ({form})\n", "bold"), (lines[0], "dim"), "\n", "\n".join(lines[1:])
    )


def _row(worker: WorkerPlan, topology: Topology) -> tuple[str, ...]:
    cpu = topology.cpu.get(worker.cpu) if worker.cpu is not None else None
    place = f"{_or_dash(cpu.core)}/{_or_dash(cpu.socket)}" if cpu is not None else "-"
    numa = "-" if worker.numa is None else str(worker.numa)
    pool = worker.mempool
    return (str(worker.queue_id), worker.role, worker.name, "-" if worker.cpu is None else str(worker.cpu), place, numa,
            pool.name, str(pool.mbufs), iec(worker.memory))  # fmt: skip


def _or_dash(number: int) -> str:
    return "-" if number < 0 else str(number)


def _findings(findings: tuple[Finding, ...]) -> Iterable[str]:
    for severity in SEVERITIES:
        mine = [finding for finding in findings if finding.severity == severity]
        for finding in mine[:_SHOWN]:
            colour = _COLOURS[severity]
            yield f"[{colour}]{severity}[/{colour}]: {escape(finding.object)}: {escape(finding.reason)}"
            yield f"  hint: {escape(finding.hint)}"
        if len(mine) > _SHOWN:
            yield f"... and {len(mine) - _SHOWN} more of this severity (--json shows all)"


def _summary(plan: Plan, next_step: str) -> str:
    memory = iec(sum(worker.memory for worker in plan.workers))
    processes = f"{plan.num_process} process" + ("es" if plan.num_process != 1 else "")
    workers = f"{plan.tot_queue_num} worker" + ("s" if plan.tot_queue_num != 1 else "")
    total = f"{processes}, {workers}, {memory} of memory"
    errors = len(plan.errors)
    if errors:
        plural = "s" if errors != 1 else ""
        return f"{total}; [bold red]{errors} error{plural}[/bold red]: start would refuse and change nothing"
    return f"{total}; nothing is changed yet: {escape(next_step)} carries this out"
