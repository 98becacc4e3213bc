# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled metrics`: what Prometheus would be told."""

from __future__ import annotations

import click

from gazelled.commands.options import instance_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
def metrics(instance: str | None) -> None:
    """Print the metrics of an instance as Prometheus reads them.

    `[metrics] listen` in the configuration has them served by a process of its own.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.metrics.exposition import text

    click.echo(text(RunDir.of(instance_name(instance))), nl=False)
