# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled run`: replaces itself by a program that uses the stack; with --explain it waits for its end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable
from gazelled.commands.options import instance_option
from gazelled.instance.run_dir import RunDir
from gazelled.lifecycle.attached import attached_environment
from gazelled.lifecycle.chosen_plan import instance_name
from gazelled.planning.plan import Plan


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@instance_option
@click.option(
    "--process-index",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which group of workers the program attaches to.",
)
@click.option(
    "--fallback",
    type=click.Choice(["kernel", "fail"]),
    default="fail",
    show_default=True,
    help="What to do if no instance runs, or if the program cannot run on the stack.",
)
@click.option("--explain", is_flag=True, help="Say at its end which path its sockets took, and why.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(instance: str | None, process_index: int, fallback: str, explain: bool, command: tuple[str, ...]) -> NoReturn:
    """Run COMMAND on the stack. Exits with the command's status.

    Sockets the stack cannot serve are the kernel's, each counted by reason in `gazelled status`.
    """
    program = _find(command[0])
    attached = True
    try:
        environment = attached_environment(RunDir.of(instance_name(instance)), process_index, fallback, Path(program))
    except GazelledError as error:
        if fallback == "fail" or error.exit_code == ExitCode.USAGE:
            raise
        click.echo(f"gazelled: {printable(error.message)}; {command[0]} runs on the kernel", err=True)
        environment, attached = dict(os.environ), False
    if explain and attached:
        sys.exit(_explained(RunDir.of(instance_name(instance)), program, command, environment))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by our parent, and the program is to find it so
            stream.flush()
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python for itself; exec would hand that on
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execve(program, list(command), environment)  # noqa: S606  that is the point
    except OSError as error:
        raise GazelledError(f"{program}: {error.strerror}", exit_code=ExitCode.NOT_EXECUTABLE) from error


def _explained(run_dir: RunDir, program: str, command: tuple[str, ...], environment: dict[str, str]) -> int:
    """Run a program to its end, say which path its sockets took, and return the status to end with."""
    from gazelled.launch.stand_in import run_to_end
    from gazelled.observe.explain import Explanation, explain_lines

    with Explanation() as explanation:
        try:
            status = run_to_end(program, command, {**environment, "GAZELLED_EXPLAIN": explanation.path})
        except OSError as error:
            raise GazelledError(f"{program}: {error.strerror}", exit_code=ExitCode.NOT_EXECUTABLE) from error
        accelerated, kernel = explanation.counts()
        refusal = explanation.refusal()
    plan = Plan.from_json(run_dir.plan.read_text())
    for line in explain_lines(command[0], plan.network.host_addr, accelerated, kernel, refusal):
        click.echo(line, err=True)
    return status


def _find(name: str) -> str:
    """Return the path of a program, as a shell finds it; with a slash, so that nobody searches PATH for it again."""
    found = shutil.which(name)
    if found is not None:
        return found if "/" in found else f"./{found}"
    if "/" in name and Path(name).exists():
        raise GazelledError(f"{name}: not executable", exit_code=ExitCode.NOT_EXECUTABLE)
    raise GazelledError(f"{name}: command not found", exit_code=ExitCode.NOT_FOUND)
