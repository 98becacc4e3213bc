# SPDX-License-Identifier: MulanPSL-2.0
"""The environment in which a program attaches to an instance that runs."""

from __future__ import annotations

import os
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance.run_dir import RunDir
from gazelled.planning.plan import Plan


def attached_environment(run_dir: RunDir, process_index: int, fallback: str, program: Path) -> dict[str, str]:
    """Return the environment in which a program attaches to a group; GazelledError if it could not.

    This process, and what it becomes, is from then on kept off the workers' CPUs if the plan says so.
    """
    from gazelled.base.native_build import shim_library
    from gazelled.instance.access import may_attach, refusal
    from gazelled.instance.reach import answering
    from gazelled.launch.preload import obstacle

    state = run_dir.read_state()
    alive = state is not None and any(worker.process and worker.process.alive for worker in state.workers)
    if not (alive or answering(run_dir)):  # the record may be old, and its pids of another PID namespace
        raise GazelledError(
            f"instance {run_dir.instance} does not run",
            hint=f"`gazelled start -i {run_dir.instance}` starts it; --fallback kernel does without the stack",
        )
    plan = Plan.from_json(run_dir.plan.read_text())
    if process_index >= plan.num_process:
        raise GazelledError(
            f"--process-index {process_index}: instance {plan.instance} has {plan.num_process} (allowed: 0 to "
            f"{plan.num_process - 1})",
            exit_code=ExitCode.USAGE,
        )
    if not may_attach(plan.security):
        raise refusal(plan.instance, plan.security.groups)
    reason = obstacle(program)
    if reason is not None:
        raise GazelledError(reason, hint="--fallback kernel runs it without the stack")
    environment = dict(os.environ)
    before = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = f"{shim_library()}:{before}" if before else str(shim_library())
    environment["GAZELLED_GROUP"] = str(run_dir.group_page(process_index))
    environment["GAZELLED_FALLBACK"] = fallback
    _bind_to_idle_cpus(plan, process_index)
    return environment


def _bind_to_idle_cpus(plan: Plan, process_index: int) -> None:
    """Keep the program off the workers' CPUs, on their node, if there are such CPUs that we may use."""
    if plan.stack.app_bind_numa:
        idle = os.sched_getaffinity(0) & set(plan.groups[process_index].app_cpus)
        if idle:
            os.sched_setaffinity(0, idle)
