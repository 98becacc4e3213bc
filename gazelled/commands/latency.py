# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled latency`: where the time of requests goes."""

from __future__ import annotations

import json
import time

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option, json_option
from gazelled.lifecycle.chosen_plan import instance_name

_WORDS = {
    "rx_to_stack": "NIC rx to connection",
    "stack_to_fifo": "into the FIFO",
    "fifo_to_read": "application reads",
    "read_to_write": "application answers",
    "write_to_stack": "stack takes it up",
    "stack_to_tx": "out to NIC tx",
    "total": "NIC rx to NIC tx",
}


@click.command()
@instance_option
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="How long to trace.")
@json_option
def latency(instance: str | None, seconds: float, as_json: bool) -> int:
    """Time requests on their way through the stack, and show p50, p99, p99.9 and the longest of each stage.

    One request of each connection at a time is stamped, from the burst it came with to the burst its answer left with.
    Workers stamp requests only while this command runs; Ctrl-C ends it early and shows what there is. Connections
    between two programs of this host do not pass the stack and are not seen.
    """
    from gazelled.base.errors import GazelledError
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.latency import Latency, traced
    from gazelled.observe.status import read_status

    run_dir = RunDir.of(instance_name(instance))
    running = [worker.queue_id for worker in read_status(run_dir).workers if worker.serves]
    if not running:
        raise GazelledError(
            f"instance {run_dir.instance}: no worker runs",
            hint=f"gazelled start -i {run_dir.instance}",
            exit_code=ExitCode.UNAVAILABLE,
        )
    with traced(run_dir, running) as pages:
        before = time.monotonic()
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            click.echo("", err=True)
        found = Latency.of(list(pages.values()), time.monotonic() - before)
    rows = found.rows()
    if as_json:
        click.echo(json.dumps({"instance": run_dir.instance, "seconds": found.seconds, "stages": rows}, indent=2))
        return ExitCode.OK
    click.echo(
        f"instance {run_dir.instance}, {found.seconds:.1f} s, {rows[-1]['count']} requests timed; microseconds\n"
    )
    click.echo(f"{'stage':<22}{'p50':>10}{'p99':>10}{'p99.9':>10}{'max':>10}")
    for row in rows:
        figures = "".join(f"{int(row[key]) / 1000:>10.1f}" for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns"))
        click.echo(f"{_WORDS[str(row['stage'])]:<22}{figures}")
    return ExitCode.OK
