# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled nics`, `bind` and `unbind`."""

from __future__ import annotations

import os
import sys

import click

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option, json_option


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _need_root(what: str) -> None:
    from gazelled.host.sysfs import Host

    if os.geteuid() != 0 and Host.from_environment().is_real:
        raise GazelledError(f"{what} needs root", hint="run it with sudo", exit_code=ExitCode.PERMISSION)


@click.command()
@json_option
@instance_option
def nics(as_json: bool, instance: str | None) -> None:
    """List NICs, what they are in use for, and how gazelled could use them.

    Changes nothing and needs no root.
    """
    from gazelled.host.sysfs import Host
    from gazelled.nics.guard import nic_rows
    from gazelled.nics.network import read_network

    rows = nic_rows(Host.from_environment(), read_network())
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    from gazelled.observe.nic_view import print_nics

    print_nics(rows)


@click.command()
@click.argument("nic")
@click.option(
    "--driver", default="vfio-pci", show_default=True, help="DPDK driver: vfio-pci, uio_pci_generic or igb_uio."
)
@click.option("--force", is_flag=True, help="Bind it even if it carries the default route or an ssh session.")
@instance_option
def bind(nic: str, driver: str, force: bool, instance: str | None) -> None:
    """Give NIC, an interface or a PCI address, to DPDK until `gazelled unbind`.

    Its driver, name, addresses, routes, MTU and up-state are recorded first and put back by `unbind` or `recover`.
    """
    from gazelled.nics.binding import bind_by_hand

    _need_root("bind")
    bind_by_hand(nic, driver, force=force, report=_say)


@click.command()
@click.argument("nic")
@instance_option
def unbind(nic: str, instance: str | None) -> None:
    """Give NIC back to the kernel as it was before `gazelled bind`."""
    from gazelled.nics.binding import unbind_by_hand

    _need_root("unbind")
    unbind_by_hand(nic, report=_say)
