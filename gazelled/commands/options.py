# SPDX-License-Identifier: MulanPSL-2.0
"""Options that several commands share, so that they are spelled and mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from gazelled.config import Uplink
from gazelled.configuration.settings import is_instance_name

_F = TypeVar("_F", bound=Callable[..., object])


def _checked(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        outer = context.parent
        while outer is not None and outer.params.get("instance") is None:
            outer = outer.parent
        return outer.params["instance"] if outer is not None else None
    if not is_instance_name(value):
        raise click.BadParameter("1 to 31 letters, digits, '-' and '_', the first a letter or digit")
    return value


def instance_option(command: _F) -> _F:
    """Give a command `-i/--instance`; `instance` is None unless given here or before the command."""
    return click.option(
        "-i",
        "--instance",
        metavar="NAME",
        callback=_checked,
        help='The instance (default: the configuration\'s, "default").',
    )(command)


def config_option(command: _F) -> _F:
    """Give a command `-c/--config`; the parameter `config_file` is None unless it was given."""
    return click.option(
        "-c",
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (default: $GAZELLED_CONFIG, /etc/gazelle.toml, built-in).",
    )(command)


def uplink_options(command: _F) -> _F:
    """Give a command `--nic` and `--past-firewall`; see `chosen_uplink`."""
    command = click.option(
        "--past-firewall",
        is_flag=True,
        help="With --nic: start although this host filters packets; the stack's do not pass its netfilter rules.",
    )(command)
    return click.option(
        "--nic",
        metavar="INTERFACE",
        help="Serve beside the kernel on this interface and its addresses (port.uplink).",
    )(command)


def chosen_uplink(nic: str | None, past_firewall: bool) -> Uplink | None:
    """Return what the two options say, None if there is no --nic."""
    if nic is None and past_firewall:
        raise click.UsageError("--past-firewall means nothing without --nic")
    return Uplink(nic, past_firewall) if nic is not None else None


def json_option(command: _F) -> _F:
    """Give a command `--json`; the parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
