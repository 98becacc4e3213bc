# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled plan` and `gazelled topology`: they read, say, and change nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import chosen_uplink, config_option, instance_option, json_option, uplink_options
from gazelled.config import load_config
from gazelled.planning.topology import Topology, load_topology


def topology_option(command: click.decorators.FC) -> click.decorators.FC:
    """Give a command `--topology`; the parameter `topology_file` is None for this machine."""
    return click.option(
        "--topology", "topology_file", metavar="FILE", type=click.Path(path_type=Path),
        help="Plan for the machine in this file (from `gazelled topology`; - is stdin) instead of this one.",
    )(command)  # fmt: skip


def topology_of(topology_file: Path | None) -> Topology:
    """Return the topology of a file, or of this machine."""
    if topology_file is not None:
        return load_topology(topology_file)
    from gazelled.host.topology_probe import read_topology

    return read_topology()


@click.command()
@config_option
@instance_option
@json_option
@uplink_options
@topology_option
def plan(
    config_file: Path | None,
    instance: str | None,
    as_json: bool,
    nic: str | None,
    past_firewall: bool,
    topology_file: Path | None,
) -> int:
    """Show which worker, queue, CPU and memory go together, and what is wrong.

    Changes nothing and needs no root. `start` carries out exactly this. Exits with 78 if an error was found.
    """
    from gazelled.queue_planner import plan as make_plan

    config = load_config(config_file, instance, chosen_uplink(nic, past_firewall))
    topology = topology_of(topology_file)
    made = make_plan(config, topology)
    if as_json:
        click.echo(made.to_json())
    else:
        from gazelled.observe.plan_view import print_plan

        words = ["gazelled", "start"]
        words += ["-c", str(config_file)] if config_file is not None else []
        words += ["-i", instance] if instance is not None else []
        words += ["--nic", nic] if nic is not None else []
        words += ["--past-firewall"] if past_firewall else []
        print_plan(made, topology, shlex.join(words))
    return ExitCode.CONFIG if made.errors else ExitCode.OK


@click.command()
@instance_option
def topology(instance: str | None) -> None:
    """Print this host's CPUs, NUMA nodes, memory, hugepages and NICs as JSON, for `plan --topology`."""
    click.echo(topology_of(None).to_json())
