# SPDX-License-Identifier: MulanPSL-2.0
"""What to do about one worker: a pure state machine, no process and no clock in it.

    STARTING --Ready--> RUNNING --Exited--> STARTING (first death: at once) or BACKOFF --delay over--> STARTING
    STARTING --Exited before Ready, `boot_tries` times in a row--> FATAL --Retry--> STARTING
    any state --Stop--> STOPPING --Exited--> STOPPED

A worker that runs must beat. What counts against it is its own time only: what it ran or slept, as far as the
supervisor itself was awake to see it. A worker that could run, and gets no CPU on a machine that has too few of them,
hangs as little as one whose supervisor slept; to kill it would make an outage of a delay.

`step` is called with every event; what it returns besides the new state is what the supervisor must do, and one
sentence that says what was decided and why (empty if nothing was). Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
class Look:
    """What the kernel says of a worker's thread."""

    state: str  # as in /proc/PID/stat: R runs or would run, S sleeps, D waits for a device, T is stopped, ...
    ran: float  # seconds on a CPU since it was made
    waited: float  # seconds for a CPU since then; one that waits now has its present wait not counted yet


@dataclass(frozen=True)
class Tick:
    """Time has passed; `heartbeat` is when the worker last beat. None: not known."""

    heartbeat: float | None = None
    look: Look | None = None


@dataclass(frozen=True)
class Stop:
    """The instance stops."""


@dataclass(frozen=True)
class Retry:
    """A person says that the cause of a FATAL is fixed."""


Event = Ready | Exited | Tick | Stop | Retry


@dataclass(frozen=True)
class Policy:
    """How patient the machine is, in seconds."""

    ready_within: float = 15.0  # of its own time, see `_own_time`
    ready_most: float = 120.0  # whatever it had to wait for a CPU
    heartbeat_within: float = 3.0  # of its own time; an idle worker beats each 0.5 s
    tick_most: float = 1.5  # what one tick says of the past: if it comes later, we slept, or had no CPU either
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
class Silence:
    """A heartbeat that was seen, and what has gone by since without another."""

    heartbeat: float
    look: Look | None  # when it was first seen
    seconds: float  # as far as we were awake
    at: float  # the last tick


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
    silence: Silence | None = field(default=None, compare=False)  # of the process that runs

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
                replace(worker, state=State.RUNNING, since=now, deadline=None, boots=0, silence=None),
                (),
                f"ready after {took:.2f} s",
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
        case Tick(), _:
            return _tick(worker, event, now, policy)
    return Step(worker)


def _tick(worker: Worker, tick: Tick, now: float, policy: Policy) -> Step:
    overdue = worker.deadline is not None and now >= worker.deadline
    match worker.state:
        case State.BACKOFF if overdue:
            return _launch(worker, now, policy, f"death {worker.deaths} in a row is {now - worker.since:.2f} s ago")
        case State.STARTING if overdue and not worker.killed:
            return _not_ready(worker, tick, now, policy)
        case State.STOPPING if overdue and not worker.killed:
            return _kill(worker, f"not drained within {policy.drain_within:g} s")
        case State.RUNNING if tick.heartbeat is not None and not worker.killed:
            return _listen(worker, tick.heartbeat, tick.look, now, policy)
    return Step(worker)


def _own_time(elapsed: float, before: Look | None, look: Look | None) -> float:
    """Return how much of a time a worker spent on anything but waiting for a CPU.

    How long a runnable one has waited by now is not known, but what it ran is exact. Of one that is not,
    the waits are all counted.
    """
    if look is None:
        return elapsed
    if look.state == "R":
        return min(elapsed, look.ran - (before.ran if before else 0.0))
    return elapsed - (look.waited - (before.waited if before else 0.0))


def _not_ready(worker: Worker, tick: Tick, now: float, policy: Policy) -> Step:
    """Decide on a start whose time is over: one that had no CPU gets the rest of its own time."""
    elapsed = now - worker.since
    left = policy.ready_within - _own_time(elapsed, None, tick.look)
    if left <= 0 or elapsed >= policy.ready_most:
        return _kill(worker, f"not ready within {policy.ready_within if left <= 0 else policy.ready_most:g} s")
    return Step(replace(worker, deadline=min(now + max(left, 0.1), worker.since + policy.ready_most)))


def _listen(worker: Worker, heartbeat: float, look: Look | None, now: float, policy: Policy) -> Step:
    """Decide by the heartbeat of a worker that runs."""
    last = worker.silence
    if last is None or heartbeat != last.heartbeat:
        seconds = min(now - max(heartbeat, worker.since), policy.tick_most)
        return Step(replace(worker, silence=Silence(heartbeat, look, seconds, now)))
    seconds = last.seconds + min(now - last.at, policy.tick_most)
    if _own_time(seconds, last.look, look) > policy.heartbeat_within:
        doing = f", state {look.state}" if look is not None else ""
        return _kill(worker, f"no heartbeat for {now - max(heartbeat, worker.since):.1f} s{doing}")
    return Step(replace(worker, silence=replace(last, seconds=seconds, at=now)))


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
