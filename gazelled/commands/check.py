# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled check`: whether this machine is fit for the stack."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from gazelled.base.errors import ConfigError, GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable_lines
from gazelled.base.run_root import run_root
from gazelled.commands.options import chosen_uplink, config_option, instance_option, json_option, uplink_options
from gazelled.config import BUILT_IN, load_config

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@config_option
@instance_option
@uplink_options
@click.option("--fix", "wanted_fix", is_flag=True, help="Offer to make the changes that `recover` can undo.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is not as it should be.")
@json_option
def check(
    config_file: Path | None,
    instance: str | None,
    nic: str | None,
    past_firewall: bool,
    wanted_fix: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Say whether this machine is fit for the configured instance, what is not, what that costs and what mends it.

    Changes nothing without --fix. Exits with 0 if all is well, 1 if something costs speed or safety, 2 if something
    keeps gazelled from working.
    """
    from gazelled.doctor.checks import exit_code, fix, look
    from gazelled.doctor.line import problem
    from gazelled.doctor.machine import Machine
    from gazelled.host.sysfs import Host
    from gazelled.host.topology_probe import read_topology
    from gazelled.queue_planner import plan

    host, lines = Host.from_environment(), []
    try:
        config = load_config(config_file, instance, chosen_uplink(nic, past_firewall))
    except ConfigError as error:
        config = BUILT_IN
        hint = error.hint or "gazelled config schema"
        lines = [problem("configuration", text, "no command can use it", hint) for text in error.messages]
    topology = read_topology(host)
    machine = Machine(host, topology, plan(config, topology), run_root().absolute())
    lines += look(machine)
    if wanted_fix:
        if os.geteuid() != 0:
            raise GazelledError("check --fix: only root changes the host", exit_code=ExitCode.PERMISSION)

        def agreed(question: str) -> bool:
            return yes or click.confirm(f"{question}?", err=True)

        def tell(sentence: str) -> None:
            print(printable_lines(sentence), file=sys.stderr)

        if fix(lines, agreed, tell):
            lines = [line for line in lines if line.subject == "configuration"] + list(look(machine))
    if as_json:
        click.echo(json.dumps([line.to_dict() for line in lines], indent=2))
        return exit_code(lines)
    for line in lines:
        if line.level != "ok" or not quiet:
            level = click.style(f"{line.level:<8}", fg=_colour(line.level))
            click.echo(f"{level} {line.subject}: {line.found}")
        if line.level != "ok":
            click.echo(f"{'':<9}costs: {line.cost}\n{'':<9}mend:  {line.command}")
    counts = {level: sum(line.level == level for line in lines) for level in ("problem", "warning", "ok")}
    fixable = sum(bool(line.fixes) for line in lines)
    click.echo(
        f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} ok"
        + (f"; `gazelled check --fix` offers to mend {fixable}" if fixable else "")
    )
    return exit_code(lines)


def _colour(level: str) -> str | None:
    """Return a level's colour, none for those who want none; click leaves it out where there is no terminal."""
    return None if os.environ.get("NO_COLOR") else _COLOURS[level]
