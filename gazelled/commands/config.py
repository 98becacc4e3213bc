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
    """Show the effective configuration or its schema."""


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
