# SPDX-License-Identifier: MulanPSL-2.0
"""A new configuration for an instance that runs: what it can take at once, and what needs a restart."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import close
from pathlib import Path

from gazelled.base.errors import ConfigError, GazelledError
from gazelled.instance.run_dir import RunDir, live_supervisor
from gazelled.instance.running_plan import running_plan
from gazelled.lifecycle.chosen_plan import make_plan, running_config, uplink_of
from gazelled.planning.plan import Plan

Report = Callable[[str], None]

_TAKEN_S = 10.0
_LOOK_S = 0.02


@dataclass(frozen=True)
class Change:
    """What another configuration would do to an instance that runs."""

    plan: Plan  # the one that runs, with what can be taken at once
    taken: list[str]
    restart: list[str]  # what needs one

    @property
    def lines(self) -> list[str]:
        """Say it."""
        return [
            *(f"at once: {each}" for each in self.taken),
            *(f"needs a restart: {each}" for each in self.restart),
        ] or ["configuration read again: nothing has changed"]


def change(running: Plan, wanted: Plan) -> Change:
    """Compare. Workers look at the group page all the time: [stack]'s budgets and [security] stand there."""
    plan = replace(running, stack=wanted.stack, security=wanted.security)
    return Change(plan, running.difference(plan), plan.difference(wanted))


def reconsider(running: Plan, config_file: Path | None) -> Change:
    """Plan again; ConfigError if there is anything wrong with the configuration, or GazelledError."""
    wanted = make_plan(config_file, running.instance, uplink_of(running))
    if wanted.errors:
        raise ConfigError([f"{finding.object}: {finding.reason}" for finding in wanted.errors])
    return change(running, wanted)


def reload(run_dir: RunDir, report: Report) -> None:
    """Have the supervisor take the configuration; returns when it has. Nothing is told to it if anything is wrong."""
    outcome = reconsider(running_plan(run_dir), running_config(run_dir))
    supervisor = live_supervisor(run_dir.read_state())
    pidfd = supervisor.open() if supervisor is not None else None
    if pidfd is None:
        raise GazelledError(
            f"instance {run_dir.instance}: it has no supervisor", hint="gazelled start brings one back, then try again"
        )
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
    finally:
        close(pidfd)
    deadline = time.monotonic() + _TAKEN_S
    while running_plan(run_dir).difference(outcome.plan):
        if time.monotonic() > deadline:
            raise GazelledError("the supervisor has not taken it", hint=f"{run_dir.supervisor_log} says why")
        time.sleep(_LOOK_S)
    for line in outcome.lines:
        report(line)
