# SPDX-License-Identifier: MulanPSL-2.0
"""What runs: read from the run directory, the worker pages and /proc, by anyone, without asking any process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable
from gazelled.instance.reach import HIDDEN, answering
from gazelled.instance.run_dir import UPLINK_FILE, RunDir, StateRecord, WorkerRecord, live_supervisor
from gazelled.observe.confinement import Confinement
from gazelled.pages.worker_page import AppStat, WorkerPage, WorkerPageState
from gazelled.planning.plan import Plan

_COMMAND_MAX = 200


@dataclass(frozen=True)
class WorkerStatus:
    """One worker. `state` is "dead" if its process is gone and no supervisor has noticed."""

    queue_id: int
    name: str
    role: str
    state: str
    pid: int | None
    cpu: int | None
    restarts: int
    connections: int
    reason: str  # of the last death, empty if there was none
    confinement: Confinement | None  # None: there is no process

    @property
    def serves(self) -> bool:
        """Tell whether it has its connections, although it may take no new ones."""
        return self.state in ("running", "draining")


@dataclass(frozen=True)
class ApplicationStatus:
    """One attached process."""

    pid: int
    command: str
    process_index: int
    sockets: int  # accelerated; one that listens counts once, however many workers it listens on
    kernel: dict[str, int]  # its sockets on the kernel path, by reason


@dataclass(frozen=True)
class Status:
    """One instance at one moment."""

    instance: str
    state: Literal["running", "degraded", "stopped"]
    pid: int | None  # of the supervisor
    address: str | None  # of the stack
    workers: tuple[WorkerStatus, ...]
    applications: tuple[ApplicationStatus, ...]
    hidden: bool = False  # it runs in another PID namespace: no pids, nor whether there is a supervisor, are known here
    uplink: dict[str, Any] | None = None  # beside the kernel: the interface, and what its programs have counted

    @property
    def exit_code(self) -> ExitCode:
        """Return what `gazelled status` ends with."""
        codes = {"running": ExitCode.OK, "degraded": ExitCode.DEGRADED, "stopped": ExitCode.NOT_RUNNING}
        return codes[self.state]

    def to_dict(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        kernel: dict[str, int] = {}
        for application in self.applications:
            for reason, count in application.kernel.items():
                kernel[reason] = kernel.get(reason, 0) + count
        accelerated = sum(application.sockets for application in self.applications)
        return {**asdict(self), "sockets": {"accelerated": accelerated, "kernel": kernel}}


def read_status(run_dir: RunDir) -> Status:
    """Look at an instance; one that does not exist is stopped."""
    record, plan = run_dir.read_state(), _read_plan(run_dir)
    supervisor = live_supervisor(record)
    if record is None or plan is None:
        pid = supervisor.pid if supervisor else None
        state: Literal["degraded", "stopped"] = "degraded" if supervisor else "stopped"
        return Status(run_dir.instance, state, pid, None, (), ())
    pages = _pages(run_dir, plan)
    seen = {worker.queue_id for worker in record.workers if worker.process is not None and worker.process.alive}
    answers = answering(run_dir) if len(seen) < len(plan.workers) else {}
    workers = tuple(_workers(record, plan, pages, {queue: pid for queue, pid in answers.items() if queue not in seen}))
    serving = sum(worker.serves for worker in workers)
    alive = supervisor is not None or serving > 0 or any(worker.pid is not None for worker in workers)
    hidden = supervisor is None and not seen and HIDDEN in answers.values()
    whole = (supervisor is not None or hidden) and serving == len(plan.workers)
    return Status(
        instance=run_dir.instance,
        state="running" if whole else "degraded" if alive else "stopped",
        pid=supervisor.pid if supervisor else None,
        address=plan.network.host_addr,
        workers=workers if alive else (),
        applications=tuple(_applications(plan, workers, pages, hidden)),
        hidden=hidden,
        uplink=_uplink(run_dir, plan),
    )


def _uplink(run_dir: RunDir, plan: Plan) -> dict[str, Any] | None:
    """Return what the supervisor has last seen of the uplink, None if there is none."""
    if plan.device.uplink is None:
        return None
    try:
        seen = json.loads((run_dir.path / UPLINK_FILE).read_text())
    except (OSError, ValueError):
        seen = {}
    return {"interface": plan.device.uplink, **seen}


def _read_plan(run_dir: RunDir) -> Plan | None:
    try:
        return Plan.from_json(run_dir.plan.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pages(run_dir: RunDir, plan: Plan) -> dict[int, WorkerPage]:
    pages = {}
    for worker in plan.workers:
        try:
            pages[worker.queue_id] = WorkerPage(run_dir.worker_page(worker.queue_id))
        except (OSError, ValueError):
            continue  # not started yet, or not to be read: its row says the rest
    return pages


def _workers(
    record: StateRecord, plan: Plan, pages: dict[int, WorkerPage], answers: dict[int, int]
) -> Iterable[WorkerStatus]:
    """Tell of each worker what the record says, or what itself says that the record does not know (`answers`)."""
    known = {worker.queue_id: worker for worker in record.workers}
    for worker in plan.workers:
        mine = known.get(worker.queue_id) or WorkerRecord(worker.queue_id, "starting", None, 0, "")
        alive = mine.process is not None and mine.process.alive
        page, answer = pages.get(worker.queue_id), answers.get(worker.queue_id)
        pid = mine.process.pid if mine.process is not None and alive else answer or None
        state = mine.state if alive or mine.process is None else "dead"
        if answer is not None:
            state = "running"
        if state == "running" and page is not None and page.state is WorkerPageState.DRAINING:
            state = "draining"
        yield WorkerStatus(
            queue_id=worker.queue_id,
            name=worker.name,
            role=worker.role,
            state=state,
            pid=pid,
            cpu=worker.cpu,
            restarts=mine.restarts,
            connections=page.counters()["connections"] if page is not None and (alive or answer is not None) else 0,
            reason=printable(mine.reason),
            confinement=Confinement.of(mine.process.pid) if mine.process is not None and alive else None,
        )


def _applications(
    plan: Plan, workers: Iterable[WorkerStatus], pages: dict[int, WorkerPage], hidden: bool
) -> Iterable[ApplicationStatus]:
    groups = {worker.queue_id: worker.process_index for worker in plan.workers}
    seen: dict[tuple[int, int], list[AppStat]] = {}
    for worker in workers:
        if (
            worker.pid is not None or worker.serves
        ) and worker.queue_id in pages:  # what a dead worker shows is no longer so
            for app in pages[worker.queue_id].apps():
                seen.setdefault((app.pid, groups[worker.queue_id]), []).append(app)
    for (pid, process_index), stats in sorted(seen.items()):
        kernel: dict[str, int] = {}
        for stat in stats:
            for reason, count in stat.kernel.items():
                kernel[reason] = kernel.get(reason, 0) + count
        yield ApplicationStatus(pid, "" if hidden else _command(pid), process_index, _sockets(stats), kernel)


def _sockets(stats: Iterable[AppStat]) -> int:
    """Count sockets over workers: a connection is on one worker or on none, a listener on each."""
    stats = list(stats)
    connections = sum(stat.sockets - stat.listeners + stat.paired for stat in stats)
    return connections + max(stat.listeners for stat in stats)


def _command(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""  # it ended a moment ago
    return printable(" ".join(argument.decode(errors="replace") for argument in arguments).strip())[:_COMMAND_MAX]
