# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled start`, `stop`, `restart`, `status`, `recover`: the life of an instance."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gazelled.base.exitcode import ExitCode
from gazelled.base.log_line import belongs_to_journal, in_journal
from gazelled.base.printable import printable_lines
from gazelled.commands.options import chosen_uplink, config_option, instance_option, json_option, uplink_options
from gazelled.lifecycle.chosen_plan import instance_name

_PATIENCE_S = 30.0
_TIMEOUT_HELP = "How long connections may take to end when they are waited for; what is left is reset."


def report(sentence: str) -> None:
    """Tell progress, where it does not mix with data."""
    print(printable_lines(sentence), file=sys.stderr, flush=True)


@click.command()
@config_option
@instance_option
@uplink_options
@click.option("--foreground", is_flag=True, help="Stay until SIGTERM, as a service manager wants it.")
def start(
    config_file: Path | None, instance: str | None, nic: str | None, past_firewall: bool, foreground: bool
) -> int:
    """Start an instance: exactly what `plan` shows.

    Returns when every worker is ready, or undoes everything and says which worker failed and why. If workers of this
    plan still run without a supervisor, they are adopted.
    """
    from gazelled.lifecycle.chosen_plan import make_plan, startable
    from gazelled.lifecycle.instance import start as start_instance

    plan = make_plan(config_file, instance, chosen_uplink(nic, past_firewall))
    in_service = foreground and belongs_to_journal(sys.stderr.fileno())
    tell = in_journal(plan.instance, report) if in_service else report
    return start_instance(startable(plan, tell), config_file, foreground=foreground, report=tell)


@click.command()
@instance_option
@click.option("--drain", "drains", is_flag=True, help="First wait for the end of the connections there are.")
@click.option("--timeout", type=click.FloatRange(0), default=_PATIENCE_S, show_default=True, help=_TIMEOUT_HELP)
def stop(instance: str | None, drains: bool, timeout: float) -> None:
    """Stop an instance and put the host back. If nothing runs, that is no error."""
    from gazelled.instance.run_dir import RunDir
    from gazelled.lifecycle.instance import stop as stop_instance

    run_dir = RunDir.of(instance_name(instance))
    if drains:
        from gazelled.instance.reach import answering
        from gazelled.lifecycle.drain import drain

        workers = sorted(answering(run_dir))
        if any(drain(run_dir, workers, timeout, report).values()):
            report("they are reset")
    stopped = stop_instance(run_dir, report)
    report(f"instance {run_dir.instance} " + ("stopped, the host is as before" if stopped else "does not run"))


@click.command()
@config_option
@instance_option
@uplink_options
@click.option("--queue", type=click.IntRange(0), help="Only this worker, drained before; the configuration stays.")
@click.option("--timeout", type=click.FloatRange(0), default=_PATIENCE_S, show_default=True, help=_TIMEOUT_HELP)
def restart(
    config_file: Path | None,
    instance: str | None,
    nic: str | None,
    past_firewall: bool,
    queue: int | None,
    timeout: float,
) -> int:
    """Stop, then start, with the same configuration unless -c names another.

    The run directory stays the same one, so that containers into which it is mounted find the new instance in it.

    The plan is made before anything is stopped: one that cannot be started leaves the running instance alone.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.lifecycle.chosen_plan import make_plan, running_config, running_uplink, startable
    from gazelled.lifecycle.instance import start as start_instance
    from gazelled.lifecycle.instance import stop as stop_instance

    run_dir = RunDir.of(instance_name(instance, config_file))
    uplink = chosen_uplink(nic, past_firewall)
    if queue is not None:
        from gazelled.lifecycle.drain import restart_worker

        if config_file is not None or uplink is not None:
            raise click.UsageError(
                "--queue restarts a worker by the plan that runs: neither --config nor --nic go with it"
            )
        restart_worker(run_dir, queue, timeout, report)
        return ExitCode.OK
    if config_file is None:
        config_file, uplink = running_config(run_dir), uplink or running_uplink(run_dir)
    plan = startable(make_plan(config_file, run_dir.instance, uplink), report)
    if stop_instance(run_dir, report, restarts=True):
        report(f"instance {run_dir.instance} stopped")
    return start_instance(plan, config_file, foreground=False, report=report)


@click.command()
@instance_option
@json_option
@click.option("--ready", is_flag=True, help="Only say whether new connections are taken: exits with 0 if so, else 3.")
def status(instance: str | None, as_json: bool, ready: bool) -> int:
    """Show workers, applications and which path their sockets took.

    Exits with 0 if all workers run, 2 if some do not or no supervisor watches them, 3 if nothing runs.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.status import read_status

    found = read_status(RunDir.of(instance_name(instance)))
    if ready:
        taking = sum(worker.state == "running" for worker in found.workers)
        click.echo(f"{'ready' if taking else 'not ready'}: {taking} workers take new connections")
        return ExitCode.OK if taking else ExitCode.NOT_RUNNING
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        from gazelled.observe.status_view import status_lines

        for line in status_lines(found):
            click.echo(line)
    return found.exit_code


@click.command()
@instance_option
def recover(instance: str | None) -> int:
    """Undo what a crash left behind: of one instance, or without -i of every one, NICs bound by hand, and what
    `check --fix` has set.

    Workers that still serve without a supervisor are ended too; to keep them, `start` adopts them instead.
    """
    from gazelled.base.errors import GazelledError
    from gazelled.base.run_root import run_root
    from gazelled.instance.run_dir import RunDir
    from gazelled.lifecycle.instance import recover as recover_instance

    problems: list[str] = []
    done = 0
    for run_dir in [RunDir.of(instance)] if instance is not None else RunDir.all():
        try:
            done += recover_instance(run_dir, report)
        except GazelledError as error:
            problems += error.messages
    if instance is None:
        from gazelled.nics.binding import recover as recover_nics

        problems += recover_nics(run_root(), report)
        from gazelled.doctor.checks import undo as undo_fixes

        done += (run_root() / "host").exists()
        problems += undo_fixes(report)
    if problems:
        raise GazelledError("; ".join(problems), hint="fix the cause, then run `gazelled recover` again")
    report("recovered, the host is as before" if done else "nothing left to recover")
    return ExitCode.OK
