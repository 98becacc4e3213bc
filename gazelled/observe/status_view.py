# SPDX-License-Identifier: MulanPSL-2.0
"""A status as a person reads it. No rich here: this command answers at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gazelled.observe.status import Status, WorkerStatus


def status_lines(status: Status) -> Iterable[str]:
    """Yield the lines `gazelled status` prints."""
    if status.state == "stopped":
        yield f"instance {status.instance}: stopped; next: gazelled start -i {status.instance}"
        return
    supervisor = "no supervisor, `gazelled start` brings it back"
    if status.hidden:
        supervisor = "in another PID namespace: no pids here, nor whether it has a supervisor"
    elif status.pid is not None:
        supervisor = f"supervisor {status.pid}"
    yield f"instance {status.instance}: {status.state}, stack address {status.address}, {supervisor}"
    yield ""
    rows: list[tuple[str, ...]]
    header: tuple[str, ...] = ("queue", "worker", "role", "state", "pid", "CPU", "restarts", "connections")
    rows = [
        (str(each.queue_id), each.name, each.role, each.state, _dash(each.pid), _dash(each.cpu), str(each.restarts),
         str(each.connections))
        for each in status.workers
    ]  # fmt: skip
    yield from _table(header, rows, right=("queue", "pid", "CPU", "restarts", "connections"))
    yield from _confinement(status.workers)
    if status.uplink is not None:
        yield _uplink_line(status.uplink)
    for worker in status.workers:
        if not worker.serves and worker.reason:
            yield f"{worker.name}: {worker.reason}"
    yield ""
    if status.applications:
        header = ("pid", "process", "accelerated", "kernel", "command")
        rows = [
            (str(each.pid), str(each.process_index), str(each.sockets), str(sum(each.kernel.values())), each.command)
            for each in status.applications
        ]
        yield from _table(header, rows, right=("pid", "process", "accelerated", "kernel"))
        yield ""
    sockets = status.to_dict()["sockets"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(sockets["kernel"].items()))
    yield (
        f"{len(status.applications)} applications; sockets: {sockets['accelerated']} accelerated, "
        f"{sum(sockets['kernel'].values())} on the kernel" + (f" ({reasons})" if reasons else "")
    )


def _confinement(workers: Sequence[WorkerStatus]) -> Iterable[str]:
    """Say what workers may do: once if it is the same for all."""
    found = {worker.name: worker.confinement.describe() for worker in workers if worker.confinement is not None}
    if len(set(found.values())) == 1:
        found = {"workers": next(iter(found.values()))}
    yield from (f"{name}: {what}" for name, what in found.items())


def _uplink_line(uplink: Mapping[str, Any]) -> str:
    line = f"beside the kernel on {uplink['interface']}"
    if uplink.get("gone"):
        return f"{line}, which is gone: no packet reaches the stack (gazelled restart, once there is one again)"
    if "taken" not in uplink:
        return line
    line += f": {uplink['taken']} packets to the stack"
    if uplink["fallen_back"]:
        line += f", {uplink['fallen_back']} connections served by the kernel while no worker lived"
    if uplink["kernel_flows"]:
        line += ", some still are"
    if uplink["returned"]:
        line += f"; {uplink['returned']} given back: of ports that others have, too, or nobody any more"
    return line


def _dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()
