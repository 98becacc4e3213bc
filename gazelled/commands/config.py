# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled config`: the configuration that is in force, and what may stand in one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gazelled.commands.options import config_option, instance_option, json_option
from gazelled.config import Config, load_config


@click.group()
@instance_option
def config(instance: str | None) -> None:
    """Show the effective configuration or its schema, or check one."""


@config.command()
@config_option
@instance_option
@json_option
def show(config_file: Path | None, instance: str | None, as_json: bool) -> None:
    """Print the effective configuration: the file's keys, with defaults filled in."""
    from gazelled.queue_planner import complete

    effective = load_config(config_file, instance)
    if not effective.process:
        from gazelled.host.topology_probe import read_topology

        effective = complete(effective, read_topology())
    click.echo(json.dumps(effective.to_dict(), indent=2) if as_json else _toml(effective))


@config.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@instance_option
def check(file: Path | None, instance: str | None) -> None:
    """Say whether a configuration is good for this machine, and what it would change of the instance that runs.

    Exits with 78 if it is not, with all that is wrong.
    """
    from gazelled.commands.lifecycle import report
    from gazelled.instance.run_dir import RunDir
    from gazelled.instance.running_plan import running_plan
    from gazelled.lifecycle.chosen_plan import make_plan, running_uplink, startable
    from gazelled.lifecycle.reload import change

    named = make_plan(file, instance)
    run_dir = RunDir.of(named.instance)
    uplink = running_uplink(run_dir)
    plan = startable(make_plan(file, instance, uplink) if uplink is not None else named, report)
    click.echo(f"good: instance {plan.instance}, {plan.tot_queue_num} workers, stack address {plan.network.host_addr}")
    if run_dir.plan.exists():
        for line in change(running_plan(run_dir), plan).lines:
            click.echo(line)


@config.command()
@instance_option
def schema(instance: str | None) -> None:
    """Print the JSON Schema of a configuration file."""
    from gazelled.configuration.model import schema as json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _toml(effective: Config) -> str:
    """Return a configuration as a file that would say the same. JSON's strings, numbers and lists are TOML's too."""
    lines = [f"# from {effective.source}"]
    for table, content in effective.to_dict().items():
        entries: list[dict[str, object]] = content if isinstance(content, list) else [content]
        for entry in entries:
            lines += ["", f"[[{table}]]" if isinstance(content, list) else f"[{table}]"]
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
    return "\n".join(lines)
