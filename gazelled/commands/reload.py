# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled reload`: the running instance takes its configuration as it is now, without a restart."""

from __future__ import annotations

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.lifecycle import report
from gazelled.commands.options import instance_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
def reload(instance: str | None) -> int:
    """Read the configuration again, as SIGHUP does: budgets, idle policy and who may attach change at once.

    What needs a restart is named and stays as it is, and so does all if anything is wrong with the file. No connection
    is touched. Workers that were given up are tried again.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.lifecycle.reload import reload as reload_instance

    reload_instance(RunDir.of(instance_name(instance)), report)
    return ExitCode.OK
