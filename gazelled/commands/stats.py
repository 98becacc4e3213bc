# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled stats`: what the workers have counted."""

from __future__ import annotations

import json
import time

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option, json_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
@click.option("--queue", "queues", type=click.IntRange(0), multiple=True, help="Only this worker; may be repeated.")
@click.option("--watch", type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="Show rates, again and again.")
@click.option("--all", "every", is_flag=True, help="Also what is 0.")
@click.option("--explain", metavar="COUNTER", help="Say what a counter means.")
@json_option
def stats(
    instance: str | None, queues: tuple[int, ...], watch: float | None, every: bool, explain: str | None, as_json: bool
) -> int:
    """Show what the workers have counted since they started, what is wrong first.

    With --watch rates per second until Ctrl-C; with --json one object per line then. The workers do not notice that
    they are read, and it works while one hangs and after it died.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.stats import as_json as json_of
    from gazelled.observe.stats import changes, lines, meaning, read

    if explain is not None:
        click.echo(meaning(explain))
        return ExitCode.OK
    run_dir = RunDir.of(instance_name(instance))
    workers = read(run_dir, queues)
    if watch is None:
        if as_json:
            click.echo(json.dumps(json_of(run_dir.instance, workers, None), indent=2))
        else:
            click.echo("\n".join(lines(workers, None, every)))
        return ExitCode.OK
    began = time.monotonic()
    while True:
        try:
            time.sleep(watch)
        except KeyboardInterrupt:
            return ExitCode.OK
        before, workers, since, began = workers, read(run_dir, queues), began, time.monotonic()
        seconds = began - since
        counted = changes(before, workers)
        if as_json:
            click.echo(json.dumps(json_of(run_dir.instance, counted, round(seconds, 3))))
        else:
            click.echo("\n".join((*lines(counted, seconds, every), "")))
