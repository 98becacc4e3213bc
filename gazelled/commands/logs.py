# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled logs`: what supervisor and workers said."""

from __future__ import annotations

from collections import deque

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what they say from now on.")
@click.option("--queue", "queues", type=click.IntRange(0), multiple=True, help="Only this worker; may be repeated.")
@click.option("--since", "begin", metavar="TIME", help='Only from then on: "90s", "5m", "2h", "2026-01-31 12:00".')
@click.option("-n", "--lines", "last", type=click.IntRange(0), help="Only the last so many (with -f: 10).")
def logs(instance: str | None, follow: bool, queues: tuple[int, ...], begin: str | None, last: int | None) -> int:
    """Show what supervisor and workers said, in the order of time (UTC).

    A log is at most 1 MiB; one that is full goes on with its end. A warning that repeats is counted, not repeated.
    The supervisor of a service writes to the journal: journalctl -u gazelled.
    """
    from gazelled.base.errors import GazelledError
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.logs import Follower, read, since

    run_dir = RunDir.of(instance_name(instance))
    start = since(begin) if begin is not None else ""
    follower = Follower(run_dir, queues) if follow else None
    keep = last if last is not None else 10 if follow and begin is None else None
    for entry in deque(read(run_dir, queues, start), keep):
        click.echo(str(entry))
    while follower is not None:
        try:
            follower.wait()
            for entry in follower.new():
                click.echo(str(entry))
        except KeyboardInterrupt:
            break
        except (GazelledError, FileNotFoundError):
            click.echo(f"instance {run_dir.instance} has ended", err=True)
            break
    return ExitCode.OK
