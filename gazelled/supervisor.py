# SPDX-License-Identifier: MulanPSL-2.0
"""The supervisor: carries out a plan, then keeps its workers running until it is told to stop.

It sleeps on descriptors (a pidfd for every worker, its ready pipe, signals) and wakes once a second to look at
heartbeats. What to do about an event is decided by gazelled.instance.worker_state; here it is done. Traffic does not
depend on this process: if it dies, workers run on, and the next supervisor adopts them.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.process_identity import ProcessIdentity
from gazelled.host.journal import Journal
from gazelled.host.uplink import index_of, read_state
from gazelled.instance import access, notify
from gazelled.instance.clean_up import put_back
from gazelled.instance.host_setup import WorkerUser, prepare, worker_user
from gazelled.instance.metrics_process import MetricsProcess
from gazelled.instance.planned_page import planned_page
from gazelled.instance.run_dir import RunDir, StateRecord, WorkerRecord, tail
from gazelled.instance.uplink_watch import UplinkWatch
from gazelled.instance.worker_process import RunningWorker, WorkerProcess, find_workers, raise_limits, verify
from gazelled.instance.worker_state import (
    Action,
    Event,
    Exited,
    Policy,
    Ready,
    Retry,
    State,
    Stop,
    Tick,
    Worker,
    adopted,
    launched,
    step,
)
from gazelled.pages import group_page
from gazelled.pages.worker_page import WorkerPage, WorkerPageState
from gazelled.planning.plan import Plan, WorkerPlan

Report = Callable[[str], None]

TICK = 1.0  # seconds between two looks at the heartbeats
_LOG_LINES = 12


class StartError(GazelledError):
    """A start failed and was undone; `problems` has a line for each worker that is to blame."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), hint="nothing was left running", exit_code=ExitCode.UNAVAILABLE)
        self.problems = problems

    @property
    def messages(self) -> list[str]:
        """Return each problem as a line of its own."""
        return self.problems


@dataclass
class _Slot:
    """A worker's place in the table."""

    plan: WorkerPlan
    worker: Worker
    process: WorkerProcess | None = None
    page: WorkerPage | None = None
    differences: list[str] = field(default_factory=list)  # between the running process and the plan

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def serves(self) -> bool:
        return self.worker.state is State.RUNNING

    @property
    def problems(self) -> list[str]:
        """Say why a start that includes this worker has failed; nothing if it serves, or still may."""
        failed = self.worker.boots > 0 or self.worker.state is State.FATAL
        reasons = [self.worker.reason] if failed else self.differences if self.serves else []
        return [f"{self.name} (queue {self.plan.queue_id}, CPU {self.plan.cpu}): {reason}" for reason in reasons]


@contextmanager
def _signals(selector: selectors.BaseSelector, handler: Callable[[int], None]) -> Iterator[None]:
    """Have the signals we live by told to `handler` by the loop, instead of interrupting it anywhere."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def drain() -> None:
        for number in reader.recv(64):
            handler(number)

    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in wanted}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    selector.register(reader, selectors.EVENT_READ, drain)
    try:
        yield
    finally:
        selector.unregister(reader)
        signal.set_wakeup_fd(wakeup)
        for number, old in before.items():
            signal.signal(number, old)
        reader.close()
        writer.close()


class Supervisor:
    """One instance. `run` is its whole life; the caller holds the lock of the run directory."""

    def __init__(
        self, plan: Plan, run_dir: RunDir, program: Path, report: Report, policy: Policy | None = None
    ) -> None:
        self.plan = plan
        self.run_dir = run_dir
        self.report = report  # one sentence per decision
        # SIGHUP: the plan to go on with, and what to say; GazelledError if the configuration is not good.
        self.reload: Callable[[], tuple[Plan, list[str]]] | None = None
        self._status = ""  # what systemd was last told
        self.each_tick: Callable[[], None] = lambda: None  # what else is to be looked at once a second
        self._program = program
        self._policy = policy or Policy()
        self._selector = selectors.DefaultSelector()
        self._slots: list[_Slot] = []
        self._stop_asked = False
        self._last_tick = time.monotonic()
        self._recorded = ""
        self._unrecorded_since: float | None = None  # state.json could not be written
        self._uplink: UplinkWatch | None = None
        self._metrics = MetricsProcess(run_dir.path, plan.metrics, report)
        if plan.device.uplink is not None:
            processes = tuple(group.process_index for group in plan.groups)
            self._uplink = UplinkWatch(plan.device.uplink, processes, run_dir, report)
            self._selector.register(self._uplink.events, selectors.EVENT_READ, self._uplink.hear)

    def run(self, on_ready: Callable[[], None]) -> list[str]:
        """Start or adopt all workers, call `on_ready`, serve until SIGTERM or SIGINT, stop everything.

        Returns what could not be put back on the host. Raises StartError or GazelledError if the start failed; the host
        is then as before, or the error says what is not.
        """
        with _signals(self._selector, self._on_signal):
            raise_limits()
            if not self._adopt():
                self._start()
            while not (self._stop_asked or all(slot.serves or slot.problems for slot in self._slots)):
                self._turn()
            if not self._stop_asked:
                on_ready()
                self._metrics.begin(time.monotonic())
                notify.notify("READY=1", self._status_line())
            while not self._stop_asked:
                self._turn()
            notify.notify("STOPPING=1")
            return self._stop()

    # ---- start

    def _start(self) -> None:
        """Make everything new, return when all workers serve; on failure, undo it and raise."""
        patient, self._policy = self._policy, replace(self._policy, boot_tries=1)
        try:
            self._record()
            user = worker_user(self.plan)
            who = access.resolve(self.plan.security, user.own_gid)
            self.run_dir.write("plan.json", self.plan.to_json())
            access.close_directory(self.run_dir.path, who)
            prepare(self.plan, Journal(self.run_dir.journal), self.report)
            for group in self.plan.groups:
                group_page.write(self._group_page(group.process_index, user, who))
            workers = self.plan.workers
            # The first af_xdp worker attaches the XDP program for all; two at once would get in each other's way.
            first = 1 if self.plan.device.driver == "af_xdp" else len(workers)
            for batch in (workers[:first], workers[first:]):
                self._launch_all(batch)
        except BaseException as error:
            left = self._stop()
            if left or isinstance(error, OSError):
                raise StartError([str(error), *left]) from error
            raise
        problems = [problem for slot in self._slots for problem in slot.problems]
        if problems:
            for slot in self._slots:
                self._show_log(slot)
            raise StartError(problems + self._stop())
        self._policy = patient

    def _launch_all(self, workers: tuple[WorkerPlan, ...]) -> None:
        """Launch workers; return when all launched so far serve, one has failed, or a stop was asked for."""
        if self._stop_asked or any(slot.problems for slot in self._slots):
            return
        now = time.monotonic()
        slots = [_Slot(plan, launched(now, self._policy)) for plan in workers]
        self._slots += slots
        for slot in slots:
            self._launch(slot)
        while not self._stop_asked and not all(slot.serves for slot in self._slots):
            if any(slot.problems for slot in self._slots):
                return
            self._turn()

    def _group_page(
        self, process_index: int, user: WorkerUser, who: access.Access, plan: Plan | None = None
    ) -> group_page.GroupPage:
        plan = plan or self.plan
        uplink = plan.device.uplink
        programs = read_state(uplink) if uplink is not None else None
        return planned_page(
            plan,
            process_index,
            self.run_dir.path,
            who,
            run_uid=user.uid,
            run_gid=user.gid,
            trust_rx_checksum=plan.device.kind == "veth",
            uplink_owners=programs.owners if programs else 0,
            uplink_alive=programs.alive if programs else 0,
            uplink_ifindex=index_of(uplink) if uplink is not None else 0,
            own=tuple(programs.addresses) if programs else (),
        )

    def _adopt(self) -> bool:
        """Take over the workers an earlier supervisor left running; False if there are none.

        Which they are the processes say: the record may lack the last one, whose maker died before it could write.
        """
        found = find_workers(self.run_dir.path)
        if not found:
            return False
        record = self.run_dir.read_state()
        restarts = {worker.queue_id: worker.restarts for worker in record.workers} if record else {}
        now = time.monotonic()
        for plan in self.plan.workers:
            slot = _Slot(plan, adopted(now, restarts.get(plan.queue_id, 0)))
            self._slots.append(slot)
            self._map_page(slot)
            self._take(slot, found)
        self._record()
        for slot in self._slots:
            if slot.process is None:
                self._event(slot, Exited("died while no supervisor ran"))
            elif not self._is_served(slot):
                slot.process.kill()  # caught while it started: its ready pipe is gone, and nothing of value with it
            else:
                self.report(f"{slot.name}: adopted, pid {slot.process.identity.pid}")
        return True

    def _take(self, slot: _Slot, found: list[RunningWorker]) -> None:
        """Make a process that another supervisor has made for this queue ours, if there is one.

        Of two only one holds the queue, and has written the page; the other is about to end by itself.
        """
        mine = [worker.process for worker in found if worker.queue_id == slot.plan.queue_id]
        holder = slot.page.pid if slot.page is not None else 0
        for process in sorted(mine, key=lambda process: process.pid != holder):
            slot.process = WorkerProcess.adopt(process)
            if slot.process is not None:
                self._watch(slot, slot.process)
                return

    def _is_served(self, slot: _Slot) -> bool:
        running = slot.page is not None and slot.page.state in (WorkerPageState.RUNNING, WorkerPageState.DRAINING)
        return running and self.run_dir.queue_held(slot.plan.queue_id)

    def _show_log(self, slot: _Slot) -> None:
        lines = tail(self.run_dir.worker_log(slot.plan.queue_id), _LOG_LINES) if slot.problems else []
        if lines:
            self.report(f"{slot.name}: its last lines:")
        for line in lines:
            self.report(f"    {line}")

    # ---- the loop

    def _turn(self) -> None:
        """Sleep until something happens, and deal with it."""
        for key, _ in self._selector.select(self._sleep()):
            key.data()
        now = time.monotonic()
        overdue = [slot for slot in self._slots if slot.worker.deadline is not None and now >= slot.worker.deadline]
        if now - self._last_tick >= TICK:
            self._last_tick = now
            notify.notify("WATCHDOG=1")
            self._tell_status()
            overdue = self._slots
            if self._unrecorded_since is not None:
                self._record()
            self.each_tick()
            self._metrics.look(now)
            if self._uplink is not None:
                self._uplink.look(sum(slot.serves for slot in self._slots), now)
        for slot in overdue:
            heartbeat = slot.page.heartbeat if slot.page else None
            self._event(slot, Tick(heartbeat, slot.process.look() if slot.process else None))

    def _sleep(self) -> float:
        now = time.monotonic()
        deadlines = [slot.worker.deadline for slot in self._slots if slot.worker.deadline is not None]
        return max(0.0, min([self._last_tick + TICK, *deadlines]) - now)

    def _event(self, slot: _Slot, event: Event) -> None:
        before = slot.worker
        outcome = step(before, event, time.monotonic(), self._policy)
        slot.worker = outcome.worker
        if outcome.sentence:
            self.report(f"{slot.name}: {outcome.sentence}")
        for action in outcome.actions:
            self._act(slot, action)
        if slot.worker != before:
            self._record()

    def _act(self, slot: _Slot, action: Action) -> None:
        match action:
            case Action.LAUNCH:
                self._launch(slot)
            case Action.TERMINATE if slot.process is not None:
                slot.process.terminate()
            case Action.KILL if slot.process is not None:
                slot.process.kill()

    def _launch(self, slot: _Slot) -> None:
        """Make the worker's process, unless a worker that no record names holds the queue: then it is adopted."""
        plan, run_dir = slot.plan, self.run_dir
        if run_dir.queue_held(plan.queue_id):
            self._map_page(slot)
            self._take(slot, find_workers(run_dir.path))
            if slot.process is not None:
                self.report(f"{slot.name}: found running, pid {slot.process.identity.pid}")
                self._record()
                if self._is_served(slot):
                    self._event(slot, Ready())
                else:
                    slot.process.kill()  # as in _adopt
                return
        page = run_dir.group_page(plan.process_index)
        try:
            log = run_dir.worker_log(plan.queue_id)
            slot.process = WorkerProcess.spawn(self._program, plan.name, page, plan.queue_id, log)
        except OSError as error:
            self._event(slot, Exited(f"{self._program}: {error.strerror}"))
            return
        self._watch(slot, slot.process)
        self._record()

    def _watch(self, slot: _Slot, process: WorkerProcess) -> None:
        # One look at the selector may bring both events of a process; the second must not hit its successor.
        self._selector.register(process.pidfd, selectors.EVENT_READ, lambda: self._on_exit(slot, process))
        if process.ready_fd is not None:
            self._selector.register(process.ready_fd, selectors.EVENT_READ, lambda: self._on_message(slot, process))

    def _on_message(self, slot: _Slot, process: WorkerProcess) -> None:
        """Read what a starting worker says: that it is ready, or why it will exit now."""
        if process.ready_fd is None:
            return
        self._selector.unregister(process.ready_fd)
        process.read_message()
        if process.said != "ready":
            return
        self._map_page(slot)
        self._event(slot, Ready())
        slot.differences = verify(process.identity.pid, slot.plan.name, slot.plan.comm, slot.plan.cpu)
        for difference in slot.differences:
            self.report(f"{slot.name}: {difference}")

    def _on_exit(self, slot: _Slot, process: WorkerProcess) -> None:
        self._on_message(slot, process)
        self._selector.unregister(process.pidfd)
        how = process.reap()
        slot.process = None
        why = "" if process.said == "ready" else process.said.removeprefix("failed: ").removeprefix(f"{slot.name}: ")
        self._event(slot, Exited(f"{why} ({how})" if why else how))

    def _map_page(self, slot: _Slot) -> None:
        """Map the worker's page; without one there is no watchdog, which is no reason to stop a worker that serves."""
        if slot.page is not None:
            slot.page.close()
        try:
            slot.page = WorkerPage(self.run_dir.worker_page(slot.plan.queue_id))
        except (OSError, ValueError) as error:
            slot.page = None
            self.report(f"{slot.name}: no heartbeat to watch: {error}")

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop_asked = True
        elif number == signal.SIGHUP:
            now_us = time.monotonic_ns() // 1000
            notify.notify("RELOADING=1", f"MONOTONIC_USEC={now_us}")
            self._reload()
            for slot in self._slots:
                self._event(slot, Retry())
            notify.notify("READY=1", self._status_line())

    def _reload(self) -> None:
        """Take what can be taken of the configuration as it is now; nothing, if anything is wrong with it."""
        try:
            if self.reload is None:
                return
            plan, lines = self.reload()
            user = worker_user(plan)
            who = access.resolve(plan.security, user.own_gid)
            access.close_directory(self.run_dir.path, who)
            for group in plan.groups:
                group_page.follow_plan(self._group_page(group.process_index, user, who, plan))
            access.share_files(self.run_dir.path, who)
            self.plan = plan
            self.run_dir.write("plan.json", plan.to_json())
        except (GazelledError, OSError) as error:
            lines = [f"configuration not taken: {each}" for each in getattr(error, "messages", [str(error)])]
        for line in lines:
            self.report(line)

    # ---- stop

    def _stop(self) -> list[str]:
        """End all workers, put the host back, remove the run directory. Returns what could not be put back."""
        self._metrics.stop()
        for slot in self._slots:
            self._event(slot, Stop())
        while not all(slot.worker.state is State.STOPPED for slot in self._slots):
            self._turn()
        if self._uplink is not None:
            self._selector.unregister(self._uplink.events)
            self._uplink.events.close()
        return put_back(self.run_dir, self.report)

    # ---- what other processes see

    def _status_line(self) -> str:
        serving = [slot for slot in self._slots if slot.serves]
        connections = sum(slot.page.counters()["connections"] for slot in serving if slot.page is not None)
        line = f"STATUS=instance {self.plan.instance}: {len(serving)} of {len(self._slots)} workers run"
        for slot in self._slots:
            drains = slot.serves and slot.page is not None and slot.page.state is WorkerPageState.DRAINING
            if drains or not slot.serves:
                line += f"; queue {slot.plan.queue_id} {'drains' if drains else slot.worker.state.value}"
        return f"{line}; {connections} connections"

    def _tell_status(self) -> None:
        line = self._status_line()
        if line != self._status:
            self._status = line
            notify.notify(line)

    def _record(self) -> None:
        """Write state.json if it says something new, and tell systemd."""
        me = ProcessIdentity.of(os.getpid())
        if me is None:
            return
        record = StateRecord(
            me,
            tuple(
                WorkerRecord(
                    slot.plan.queue_id,
                    slot.worker.state.value,
                    slot.process.identity if slot.process else None,
                    slot.worker.restarts,
                    slot.worker.reason,
                )
                for slot in self._slots
            ),
        )
        text = record.to_json()
        if text != self._recorded:
            self._write_state(text)
            self._tell_status()

    def _write_state(self, text: str) -> None:
        """Write state.json. Without room for it workers are served all the same; each tick tries again.

        Until then commands find workers by the command lines of the processes.
        """
        since = self._unrecorded_since
        try:
            self.run_dir.write("state.json", text)
        except OSError as error:
            if since is None:
                self._unrecorded_since = time.monotonic()
                self.report(f"{self.run_dir.path}: {error.strerror}: the state is not written down until that changes")
            return
        self._recorded = text
        if since is not None:
            self._unrecorded_since = None
            self.report(f"{self.run_dir.path}: the state is written down again, after {time.monotonic() - since:.1f} s")
