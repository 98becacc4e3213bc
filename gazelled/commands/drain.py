# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled drain`: no new connections for some workers, or for all."""

from __future__ import annotations

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.lifecycle import report
from gazelled.commands.options import instance_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
@click.option("--queue", "queues", type=click.IntRange(0), multiple=True, help="This worker; may be repeated.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer than that.")
@click.option("--undo", is_flag=True, help="Take new connections again.")
def drain(instance: str | None, queues: tuple[int, ...], timeout: float | None, undo: bool) -> int:
    """Take no new connections, and wait until the old ones have ended; without --queue at all workers.

    What would have come to a worker goes to the others; if all are drained, clients get no answer. UDP sockets and
    connections between programs of this host go on. It stays so after the time-out and after Ctrl-C, until
    `gazelled drain --undo` or a restart.
    """
    from gazelled.base.errors import GazelledError
    from gazelled.instance.run_dir import RunDir
    from gazelled.lifecycle.drain import drain as drain_workers
    from gazelled.lifecycle.drain import tell, workers_of

    run_dir = RunDir.of(instance_name(instance))
    meant = workers_of(run_dir, queues)
    if undo:
        tell(run_dir, meant, False)
        return ExitCode.OK
    left = drain_workers(run_dir, meant, timeout, report)
    if any(left.values()):
        raise GazelledError(
            f"{sum(left.values())} connections are left after {timeout:g} s",
            hint="they stay drained: `gazelled drain` waits on, `gazelled drain --undo` takes new connections again",
        )
    return ExitCode.OK
