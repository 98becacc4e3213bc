# SPDX-License-Identifier: MulanPSL-2.0
"""An instance from outside: started, stopped and recovered by commands, whatever state it is found in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from gazelled.base.errors import ConfigError, GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.process_identity import end_processes
from gazelled.config import DEFAULT_INSTANCE, find_config
from gazelled.instance.run_dir import RunDir, live_supervisor
from gazelled.planning.plan import Plan

Report = Callable[[str], None]

_DIFFERENCES_SHOWN = 8
_STOP_S = 20.0  # workers drain for 2 s at most; the rest is netlink
_HELD_S = 5.0  # how long a process may hold the lock before state.json names it


def start(plan: Plan, config_file: Path | None, *, foreground: bool, report: Report) -> int:
    """Start an instance and return when all workers are ready; in the foreground, when it has been stopped.

    An instance that runs by the same plan is left alone; workers that a dead supervisor left are adopted; whatever else
    it left is undone first.
    """
    from gazelled.base.native_build import worker_program
    from gazelled.lifecycle.background import start_in_background, supervise

    worker_program()
    run_dir = RunDir.of(plan.instance)
    lock = run_dir.lock()
    if lock is not None and _undo_leftovers(run_dir, plan, lock, report):
        lock = run_dir.lock()
    if lock is None:
        return _already_running(run_dir, plan, report)
    if plan.security.everybody:
        report(
            "every user of this host may attach; [security] in a configuration file says who may, see etc/gazelle.toml"
        )
    source = find_config(config_file)
    source = source.absolute() if source is not None else None
    _release_what_a_restart_kept(run_dir, plan, report)
    _prepare(run_dir, plan, source, lock, report)
    if foreground:
        try:
            return supervise(plan, source, report, lambda: report(ready_sentence(plan)))
        finally:
            os.close(lock)
    start_in_background(run_dir, plan, source, lock, report)
    report(ready_sentence(plan))
    return int(ExitCode.OK)


def _release_what_a_restart_kept(run_dir: RunDir, plan: Plan, report: Report) -> None:
    """Let go of what a restart has kept from the instance before, as far as the new one has not the same."""
    from ipaddress import ip_interface

    from gazelled.host.changes import UnreachableSubnet
    from gazelled.host.journal import Journal

    if not run_dir.between.exists():
        return
    network = plan.network
    stack = [f"{network.host_addr}/{network.prefix}"] + ([f"{network.host_addr6}/64"] if network.host_addr6 else [])
    kept = [UnreachableSubnet(str(ip_interface(each).network)) for each in stack] if plan.device.embedded else []
    Journal(run_dir.journal).undo_where(lambda change: change not in kept, report)
    run_dir.between.unlink(missing_ok=True)


def _prepare(run_dir: RunDir, plan: Plan, source: Path | None, lock: int, report: Report) -> None:
    """See that there is room for a new instance, and write down its configuration; a failure leaves nothing."""
    from gazelled.instance.clean_up import put_back
    from gazelled.pages.run_memory import check_room

    if run_dir.plan.exists():  # its workers are adopted
        return
    try:
        check_room(run_dir.path, len(plan.workers), len(plan.groups))
        run_dir.write("config", str(source or ""))
    except (GazelledError, OSError):
        put_back(run_dir, report)  # a restart has kept a little
        os.close(lock)
        raise


def ready_sentence(plan: Plan) -> str:
    """Say that an instance runs, and how to use it."""
    workers = f"{plan.tot_queue_num} worker{'s' if plan.tot_queue_num > 1 else ''}"
    option = "" if plan.instance == DEFAULT_INSTANCE else f" -i {plan.instance}"
    return (
        f"instance {plan.instance} runs: {workers}, stack address {plan.network.host_addr}; "
        f"next: gazelled run{option} -- PROGRAM, gazelled status{option}, gazelled stop{option}"
    )


def _already_running(run_dir: RunDir, plan: Plan, report: Report) -> int:
    differences = _difference(run_dir, plan)
    if differences:
        raise ConfigError(
            [f"instance {plan.instance} runs by another plan:", *differences],
            hint=f"`gazelled restart -i {plan.instance}` takes the new one",
        )
    report(f"instance {plan.instance} already runs by this plan; nothing to do")
    return int(ExitCode.OK)


def _undo_leftovers(run_dir: RunDir, plan: Plan, lock: int, report: Report) -> bool:
    """Undo what a dead supervisor left and give up the lock; False if workers are there to adopt, or nothing is.

    As between the stop and the start of a restart, what outlives that stays.

    The lock is closed on errors too.
    """
    from gazelled.instance.clean_up import clean_up, live_workers

    workers = live_workers(run_dir)
    if run_dir.between.exists() and not (workers or run_dir.held_queues() or run_dir.plan.exists()):
        return False  # see _release_what_a_restart_kept
    if not (workers or run_dir.held_queues() or run_dir.plan.exists() or run_dir.journal.exists()):
        return False
    problems: list[str] = []
    try:
        if workers and run_dir.plan.exists():
            problems = _difference(run_dir, plan)
            if not problems:
                return False
            raise ConfigError(
                [f"workers of instance {plan.instance} run without a supervisor, by another plan:", *problems],
                hint=f"`gazelled restart -i {plan.instance}` ends them and takes the new plan",
            )
        report("undoing what an earlier run left behind")
        run_dir.between.touch()
        problems = clean_up(run_dir, report)
        if problems:
            raise GazelledError("; ".join(problems), hint="fix the cause, then start again")
    except GazelledError:
        os.close(lock)
        raise
    os.close(lock)
    return True


def _difference(run_dir: RunDir, plan: Plan) -> list[str]:
    """Say what `plan` does differently from the one that runs."""
    from gazelled.pages import group_page

    try:
        running = Plan.from_json(run_dir.plan.read_text())
        version = group_page.read_version(run_dir.group_page(0))
    except FileNotFoundError:
        return []  # it is just being started
    except (ValueError, KeyError, TypeError):
        return ["the running plan is of another version of gazelled"]
    if version != group_page.ABI_VERSION:
        return [f"workers of ABI version {version} -> {group_page.ABI_VERSION}"]
    # The indirection table and the groups only follow from the rest.
    differences = [line for line in running.difference(plan) if not line.startswith(("reta", "groups"))]
    if len(differences) > _DIFFERENCES_SHOWN:
        differences[_DIFFERENCES_SHOWN:] = [f"and {len(differences) - _DIFFERENCES_SHOWN} more"]
    return differences


def stop(run_dir: RunDir, report: Report, *, restarts: bool = False) -> bool:
    """Stop an instance, or what is left of it, and put the host back; False if there was nothing to do.

    With `restarts` what is to outlive a restart stays, for a start that follows. GazelledError says what could not be
    put back.
    """
    if not run_dir.path.exists():
        return False
    _check_permission(run_dir)
    run_dir.between.unlink(missing_ok=True)
    if restarts:
        run_dir.between.touch()
    try:
        lock = _stop_supervisor(run_dir)
    except GazelledError:
        run_dir.between.unlink(missing_ok=True)
        raise
    _clean_up(run_dir, lock, report)  # and tells what the supervisor could not do, if there was one
    return True


def _stop_supervisor(run_dir: RunDir) -> int:
    """End the supervisor, if there is one, and return the lock of the run directory."""
    from gazelled.instance.reach import HIDDEN, answering

    deadline = time.monotonic() + _HELD_S
    while (lock := run_dir.lock()) is None:
        supervisor = live_supervisor(run_dir.read_state())
        if supervisor is not None:
            if end_processes([supervisor], _STOP_S):
                raise GazelledError(f"the supervisor, process {supervisor.pid}, does not end")
        elif HIDDEN in answering(run_dir).values():
            raise GazelledError(
                f"instance {run_dir.instance} runs in another PID namespace", hint="stop it there, where it was started"
            )
        elif time.monotonic() > deadline:
            raise GazelledError(f"{run_dir.path}: another gazelled is at work there", hint="try again")
        else:
            time.sleep(0.02)
    return lock


def recover(run_dir: RunDir, report: Report) -> bool:
    """Undo what a dead supervisor left, its workers included; False if there is nothing to do, or the instance runs."""
    if not run_dir.path.exists():
        return False
    _check_permission(run_dir)
    lock = run_dir.lock()
    if lock is not None:
        run_dir.between.unlink(missing_ok=True)
    if lock is None:
        report(f"instance {run_dir.instance} runs, or is just being started or stopped; nothing to recover")
        return False
    _clean_up(run_dir, lock, report)
    return True


def _clean_up(run_dir: RunDir, lock: int, report: Report) -> None:
    """Put the host back and let go of the lock; GazelledError says what could not be put back."""
    from gazelled.instance.clean_up import clean_up

    try:
        problems = clean_up(run_dir, report)
    finally:
        os.close(lock)
    if problems:
        raise GazelledError(
            f"instance {run_dir.instance}: not all was put back: {'; '.join(problems)}",
            hint=f"fix the cause, then `gazelled recover -i {run_dir.instance}`",
        )


def _check_permission(run_dir: RunDir) -> None:
    if not os.access(run_dir.path, os.W_OK):
        raise GazelledError(f"{run_dir.path}: permission denied", hint="run it as root", exit_code=ExitCode.PERMISSION)
