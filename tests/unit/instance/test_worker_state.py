# SPDX-License-Identifier: MulanPSL-2.0
"""The worker's state machine: what is decided for every event, and what never happens whatever the events are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gazelled.instance.worker_state import (
    Action,
    Event,
    Exited,
    Look,
    Policy,
    Ready,
    Retry,
    State,
    Step,
    Stop,
    Tick,
    Worker,
    adopted,
    launched,
    step,
)

POLICY = Policy()


def running(since: float = 0.0) -> Worker:
    return replace(launched(since, POLICY), state=State.RUNNING, deadline=None)


def test_a_worker_runs_only_once_it_is_ready() -> None:
    outcome = step(launched(0, POLICY), Ready(), 0.25, POLICY)
    assert outcome.worker.state is State.RUNNING
    assert (outcome.actions, outcome.sentence) == ((), "ready after 0.25 s")


def test_the_first_death_restarts_at_once() -> None:
    outcome = step(running(), Exited("killed by SIGKILL"), 60, POLICY)
    assert outcome.worker.state is State.STARTING
    assert outcome.actions == (Action.LAUNCH,)
    assert outcome.sentence == "restarted: killed by SIGKILL"
    assert outcome.worker.restarts == 1


def deaths_in_a_row(count: int) -> tuple[Worker, list[float]]:
    """Let a worker die right after it is ready, again and again; return how long each restart was put off."""
    worker, now, delays = running(), 0.0, []
    for _ in range(count):
        worker = step(worker, Exited("killed by SIGKILL"), now, POLICY).worker
        if worker.state is State.BACKOFF:
            assert worker.deadline is not None
            delays.append(worker.deadline - now)
            now = worker.deadline
            worker = step(worker, Tick(), now, POLICY).worker
        else:
            delays.append(0.0)
        worker = step(worker, Ready(), now, POLICY).worker
    return worker, delays


def test_deaths_in_a_row_are_put_off_longer_and_longer_but_never_given_up() -> None:
    worker, delays = deaths_in_a_row(10)
    assert delays == [0, 0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]
    assert worker.state is State.RUNNING


def test_a_worker_that_stayed_up_is_forgiven_its_earlier_deaths() -> None:
    worker, _ = deaths_in_a_row(5)
    outcome = step(worker, Exited("killed by SIGKILL"), worker.since + POLICY.stable_after, POLICY)
    assert outcome.actions == (Action.LAUNCH,)


def failed_starts(count: int) -> Step:
    worker, now = launched(0, POLICY), 0.0
    outcome = Step(worker)
    for _ in range(count):
        outcome = step(outcome.worker, Exited("no such device (exited with status 69)"), now, POLICY)
        if outcome.worker.state is State.BACKOFF:
            now = outcome.worker.deadline or now
            before = outcome
            outcome = step(outcome.worker, Tick(), now, POLICY)
            if outcome.worker.state is not State.STARTING:
                return before
    return outcome


def test_a_worker_that_never_gets_ready_is_given_up_with_the_reason() -> None:
    assert failed_starts(POLICY.boot_tries - 1).worker.state is State.STARTING
    outcome = failed_starts(POLICY.boot_tries)
    assert outcome.worker.state is State.FATAL
    assert outcome.sentence == "given up after 8 starts in a row that failed: no such device (exited with status 69)"
    assert step(outcome.worker, Tick(), 1e9, POLICY) == Step(outcome.worker)


def test_a_person_can_ask_to_try_a_given_up_worker_again() -> None:
    fatal = failed_starts(POLICY.boot_tries).worker
    outcome = step(fatal, Retry(), 100, POLICY)
    assert outcome.actions == (Action.LAUNCH,)
    assert outcome.worker.boots == 0
    assert step(running(), Retry(), 100, POLICY) == Step(running())


def test_a_start_without_a_word_is_killed_and_counts_as_a_failed_one() -> None:
    worker = launched(0, POLICY)
    assert step(worker, Tick(), POLICY.ready_within - 0.01, POLICY).actions == ()
    killed = step(worker, Tick(), POLICY.ready_within, POLICY)
    assert (killed.actions, killed.sentence) == ((Action.KILL,), "killed: not ready within 15 s")
    assert step(killed.worker, Tick(), POLICY.ready_within + 1, POLICY).actions == ()  # once is enough
    assert step(killed.worker, Ready(), POLICY.ready_within + 1, POLICY).worker.state is State.STARTING  # too late
    dead = step(killed.worker, Exited("killed by SIGKILL"), POLICY.ready_within + 1, POLICY)
    assert dead.sentence == "restarted: not ready within 15 s"
    assert dead.worker.boots == 1


def watched(worker: Worker, looks: list[tuple[float, Look | None]], heartbeat: float) -> Step:
    """Let ticks come at these times, with the same last heartbeat, and return the first that does something."""
    outcome = Step(worker)
    for now, look in looks:
        outcome = step(outcome.worker, Tick(heartbeat, look), now, POLICY)
        if outcome.actions:
            break
    return outcome


def test_a_worker_that_stops_beating_is_killed_and_restarted() -> None:
    ticks = [110.5, 111.5, 112.9, 113.5]
    assert watched(running(since=100), [(now, None) for now in ticks[:-1]], 110.0).actions == ()
    killed = watched(running(since=100), [(now, None) for now in ticks], 110.0)
    assert (killed.actions, killed.sentence) == ((Action.KILL,), "killed: no heartbeat for 3.5 s")
    assert step(killed.worker, Exited("killed by SIGKILL"), 113.6, POLICY).actions == (Action.LAUNCH,)


def looks(
    state: str, seconds: int, ran: float = 0.0, waited: float = 0.0, every: float = 1.0
) -> list[tuple[float, Look]]:
    """Return a look for each tick: every second the worker ran, and waited for a CPU, so long."""
    return [
        (110.0 + n * every, Look(state, 50.0 + n * every * ran, 70.0 + n * every * waited))
        for n in range(1, int(seconds / every) + 1)
    ]


@pytest.mark.parametrize(
    ("what", "seen", "killed"),
    [
        ("runs all the time and does not beat", looks("R", 5, ran=1.0), "no heartbeat for 5.0 s, state R"),
        ("waits for a CPU, and has had none at all", looks("R", 600), ""),
        ("gets a thirtieth of a CPU, and beats at the end", looks("R", 60, ran=1 / 30, waited=29 / 30), ""),
        ("gets a thirtieth of a CPU, and never beats", looks("R", 120, ran=1 / 30, waited=29 / 30), "92.0 s, state R"),
        ("is stopped", looks("T", 5), "no heartbeat for 4.0 s, state T"),
        ("hangs in a device", looks("D", 5), "no heartbeat for 4.0 s, state D"),
        ("sleeps and is not woken", looks("S", 5), "no heartbeat for 4.0 s, state S"),
        ("sleeps a little between long waits for a CPU", looks("S", 20, ran=0.01, waited=0.9), ""),
        ("is stopped while its supervisor gets a CPU each 10 s", looks("T", 60, every=10.0), "30.0 s, state T"),
        ("is asked once after a minute in which its supervisor slept", looks("S", 60, every=60.0), ""),
    ],
)
def test_only_a_workers_own_time_counts_against_it(
    what: str, seen: list[tuple[float, Look | None]], killed: str
) -> None:
    outcome = watched(running(since=100), seen, heartbeat=110.0)
    assert outcome.actions == ((Action.KILL,) if killed else ()), what
    assert killed in outcome.sentence


def test_a_heartbeat_forgives_the_silence_before_it() -> None:
    worker = running(since=100)
    for second in range(1, 60):
        beat = 110.0 + second // 3 * 3
        outcome = step(worker, Tick(beat, Look("S", 0, 0)), 110.0 + second, POLICY)
        assert outcome.actions == ()
        worker = outcome.worker


def test_a_start_without_a_cpu_is_given_its_time_but_not_for_ever() -> None:
    outcome = Step(launched(0, POLICY))
    for second in range(1, 119):
        outcome = step(outcome.worker, Tick(None, Look("R", second / 60, second * 59 / 60)), second, POLICY)
        assert outcome.actions == ()
    outcome = step(outcome.worker, Tick(None, Look("R", 2, 118)), POLICY.ready_most, POLICY)
    assert (outcome.actions, outcome.sentence) == ((Action.KILL,), "killed: not ready within 120 s")


def test_a_start_that_waited_for_a_cpu_and_then_hangs_is_killed_after_its_own_time() -> None:
    outcome = Step(launched(0, POLICY))
    killed = 0
    for second in range(1, 60):
        outcome = step(outcome.worker, Tick(None, Look("S", 1, min(second, 20))), second, POLICY)
        killed = killed or (second if outcome.actions else 0)
    assert killed == 20 + POLICY.ready_within


def test_the_heartbeat_of_a_predecessor_is_not_held_against_a_worker() -> None:
    assert step(running(since=100), Tick(heartbeat=50.0), 102, POLICY).actions == ()


def test_an_unknown_heartbeat_kills_nobody() -> None:
    assert step(running(), Tick(heartbeat=None), 1e6, POLICY).actions == ()


@pytest.mark.parametrize("worker", [launched(0, POLICY), running(), adopted(0, restarts=3)])
def test_stop_drains_then_kills(worker: Worker) -> None:
    stopping = step(worker, Stop(), 10, POLICY)
    assert stopping.actions == (Action.TERMINATE,)
    assert step(stopping.worker, Tick(), 11, POLICY).actions == ()
    killed = step(stopping.worker, Tick(), 10 + POLICY.drain_within, POLICY)
    assert killed.actions == (Action.KILL,)
    assert step(killed.worker, Exited("killed by SIGKILL"), 13, POLICY).worker.state is State.STOPPED


def test_stop_of_a_worker_without_process_is_over_at_once() -> None:
    waiting = replace(running(), state=State.BACKOFF, deadline=99)
    for worker in (waiting, failed_starts(POLICY.boot_tries).worker):
        assert step(worker, Stop(), 10, POLICY).worker.state is State.STOPPED


class World(RuleBasedStateMachine):
    """A worker in a world where processes start, fail, serve, hang and die as they like, and time only goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy(boot_tries=3)
        self.now = 0.0
        self.worker = launched(self.now, self.policy)
        self.process = True  # it was just launched
        self.served = False  # this process was ready
        self.signalled = False
        self.launches = 1
        self.failed_boots = 0
        self.stopped = False

    def send(self, event: Event) -> None:
        before = self.worker
        outcome = step(self.worker, event, self.now, self.policy)
        self.worker = outcome.worker
        assert self.worker.since <= self.now
        assert (before == self.worker) <= (not outcome.actions), "an action without a change would be repeated for ever"
        for action in outcome.actions:
            assert self.process or action is Action.LAUNCH, f"{action} without a process"
            if action is Action.LAUNCH:
                assert not self.process, "two processes of one worker"
                assert not self.stopped, "a launch after stop"
                self.process, self.served, self.signalled = True, False, False
                self.launches += 1
            else:
                self.signalled = True

    @precondition(lambda self: self.process and not self.served)
    @rule()
    def gets_ready(self) -> None:
        killed = bool(self.worker.killed)
        self.served = True
        self.send(Ready())
        if not killed and not self.stopped:
            assert self.worker.state is State.RUNNING
            self.failed_boots = 0

    @precondition(lambda self: self.process)
    @rule()
    def dies(self) -> None:
        booting = self.worker.state is State.STARTING
        self.process = False
        self.failed_boots = self.failed_boots + 1 if booting else 0
        self.send(Exited("killed by SIGSEGV"))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0, 20.0]), beats=st.booleans())
    def time_passes(self, seconds: float, beats: bool) -> None:
        self.now += seconds
        self.send(Tick(self.now if beats else self.now - seconds))
        if self.worker.state is State.BACKOFF:
            assert self.worker.deadline is not None
            assert self.now < self.worker.deadline <= self.now + self.policy.backoff_most

    @rule()
    def is_stopped(self) -> None:
        self.stopped = True
        self.send(Stop())

    @rule()
    def is_retried(self) -> None:
        fatal = self.worker.state is State.FATAL
        if fatal:
            self.failed_boots = 0
        self.send(Retry())
        assert not fatal or self.process

    @invariant()
    def the_state_tells_whether_there_is_a_process(self) -> None:
        assert self.worker.has_process == self.process

    @invariant()
    def restarts_are_counted(self) -> None:
        assert self.worker.restarts == self.launches - 1

    @invariant()
    def only_starts_that_failed_in_a_row_are_fatal(self) -> None:
        if not self.stopped:
            assert (self.worker.state is State.FATAL) == (self.failed_boots >= self.policy.boot_tries)

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        if self.worker.state in (State.STARTING, State.BACKOFF, State.STOPPING):
            assert self.worker.deadline is not None

    @invariant()
    def a_stopped_instance_comes_to_an_end(self) -> None:
        if self.stopped:
            assert self.worker.state is (State.STOPPING if self.process else State.STOPPED)
            assert not self.process or self.signalled


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=30)
