# SPDX-License-Identifier: MulanPSL-2.0
"""What to do about one worker: a pure state machine, no process and no clock in it.

    STARTING --Ready--> RUNNING --Exited--> STARTING (first death: at once) or BACKOFF --delay over--> STARTING
    STARTING --Exited before Ready, `boot_tries` times in a row--> FATAL --Retry--> STARTING
    any state --Stop--> STOPPING --Exited--> STOPPED

`step` is called with every event; what it returns besides the new state is what the supervisor must do, and one
sentence that says what was decided and why (empty if nothing was). Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    """Where a worker is in its life; the values are what `gazelled status` shows."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    FATAL = "fatal"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Action(Enum):
    """What the supervisor must do; `Exited` answers a LAUNCH that failed as well as a process that ended."""

    LAUNCH = "launch"
    TERMINATE = "terminate"  # SIGTERM: drain
    KILL = "kill"


@dataclass(frozen=True)
class Ready:
    """The worker serves."""


@dataclass(frozen=True)
class Exited:
    """The worker's process is gone, or could not be made."""

    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed; `heartbeat` is when the worker last beat, None if that is not known."""

    heartbeat: float | None = None


@dataclass(frozen=True)
class Stop:
    """The instance stops."""


@dataclass(frozen=True)
class Retry:
    """A person says that the cause of a FATAL is mended."""


Event = Ready | Exited | Tick | Stop | Retry


@dataclass(frozen=True)
class Policy:
    """How patient the machine is, in seconds."""

    ready_within: float = 15.0
    heartbeat_within: float = 3.0  # an idle worker beats each 0.5 s
    drain_within: float = 2.0  # a worker takes 1 s at most
    stable_after: float = 10.0  # up this long, earlier deaths are forgotten
    backoff_first: float = 0.25  # the second restart; the first has no delay
    backoff_most: float = 10.0
    boot_tries: int = 8  # starts in a row that never served

    def delay(self, deaths: int) -> float:
        """Return how long to wait before the next start after so many deaths in a row."""
        if deaths <= 1:
            return 0.0
        return min(self.backoff_most, self.backoff_first * 2.0 ** min(deaths - 2, 32))


@dataclass(frozen=True)
class Worker:
    """One worker as the machine knows it."""

    state: State
    since: float  # when it entered this state
    deadline: float | None = None  # when waiting in this state ends
    killed: str = ""  # why SIGKILL was sent; the exit that answers it is still to come
    deaths: int = 0  # in a row, none of which was `stable_after` apart
    boots: int = 0  # of those, in a row, before ready
    restarts: int = 0  # launches after the first one
    reason: str = ""  # of the last death

    @property
    def has_process(self) -> bool:
        """Tell whether a process is there, or was asked for."""
        return self.state in (State.STARTING, State.RUNNING, State.STOPPING)


@dataclass(frozen=True)
class Step:
    """The outcome of one event."""

    worker: Worker
    actions: tuple[Action, ...] = ()
    sentence: str = ""


def launched(now: float, policy: Policy) -> Worker:
    """Return the state of a worker whose first process is being made."""
    return Worker(State.STARTING, now, now + policy.ready_within)


def adopted(now: float, restarts: int) -> Worker:
    """Return the state of a running worker that an earlier supervisor has made."""
    return Worker(State.RUNNING, now, restarts=restarts)


def step(worker: Worker, event: Event, now: float, policy: Policy) -> Step:
    """Decide. Events that mean nothing in a state (a Ready that crossed a Stop, a late Tick) change nothing."""
    match event, worker.state:
        case Ready(), State.STARTING if not worker.killed:
            took = now - worker.since
            return Step(
                replace(worker, state=State.RUNNING, since=now, deadline=None, boots=0), (), f"ready after {took:.2f} s"
            )
        case Exited(reason), State.STARTING | State.RUNNING:
            return _died(worker, worker.killed or reason, now, policy)
        case Exited(), State.STOPPING:
            return Step(replace(worker, state=State.STOPPED, since=now, deadline=None, killed=""), (), "stopped")
        case Stop(), State.STARTING | State.RUNNING:
            stopping = replace(worker, state=State.STOPPING, since=now, deadline=now + policy.drain_within)
            return Step(stopping, (Action.TERMINATE,))
        case Stop(), State.BACKOFF | State.FATAL:
            return Step(
                replace(worker, state=State.STOPPED, since=now, deadline=None), (), "stopped, it had no process"
            )
        case Retry(), State.FATAL:
            return _launch(replace(worker, deaths=0, boots=0), now, policy, "asked to try again")
        case Tick(heartbeat), _:
            return _tick(worker, heartbeat, now, policy)
    return Step(worker)


def _tick(worker: Worker, heartbeat: float | None, now: float, policy: Policy) -> Step:
    overdue = worker.deadline is not None and now >= worker.deadline
    match worker.state:
        case State.BACKOFF if overdue:
            return _launch(worker, now, policy, f"death {worker.deaths} in a row is {now - worker.since:.2f} s ago")
        case State.STARTING if overdue and not worker.killed:
            return _kill(worker, f"not ready within {policy.ready_within:g} s")
        case State.STOPPING if overdue and not worker.killed:
            return _kill(worker, f"not drained within {policy.drain_within:g} s")
        case State.RUNNING if heartbeat is not None and not worker.killed:
            silent = now - max(heartbeat, worker.since)
            if silent > policy.heartbeat_within:
                return _kill(worker, f"no heartbeat for {silent:.1f} s")
    return Step(worker)


def _kill(worker: Worker, why: str) -> Step:
    return Step(replace(worker, killed=why), (Action.KILL,), f"killed: {why}")


def _died(worker: Worker, reason: str, now: float, policy: Policy) -> Step:
    ready = worker.state is State.RUNNING
    stable = ready and now - worker.since >= policy.stable_after
    dead = replace(
        worker,
        killed="",
        reason=reason,
        deaths=1 if stable else worker.deaths + 1,
        boots=0 if ready else worker.boots + 1,
    )
    if dead.boots >= policy.boot_tries:
        fatal = replace(dead, state=State.FATAL, since=now, deadline=None)
        tries = f" after {dead.boots} starts in a row that failed" if dead.boots > 1 else ""
        return Step(fatal, (), f"given up{tries}: {reason}")
    delay = policy.delay(dead.deaths)
    if delay == 0.0:
        return _launch(dead, now, policy, reason)
    waiting = replace(dead, state=State.BACKOFF, since=now, deadline=now + delay)
    return Step(waiting, (), f"{reason}; next start in {delay:g} s")


def _launch(worker: Worker, now: float, policy: Policy, why: str) -> Step:
    starting = replace(
        worker,
        state=State.STARTING,
        since=now,
        deadline=now + policy.ready_within,
        killed="",
        restarts=worker.restarts + 1,
    )
    return Step(starting, (Action.LAUNCH,), f"restarted: {why}")
