# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled connections`, also `gazelled ss`: every socket that the instance serves."""

from __future__ import annotations

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option, json_option
from gazelled.lifecycle.chosen_plan import instance_name

_SORTS = (
    "rx_queued", "tx_queued", "send_window", "receive_window", "congestion_window", "rtt_us", "segments_in",
    "segments_out", "retransmits", "bytes_received", "bytes_acked", "age_ms", "idle_ms", "local_port", "peer_port",
)  # fmt: skip
_STATES = (
    "syn-sent", "syn-recv", "established", "fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack",
    "time-wait", "listen", "unconn",
)  # fmt: skip


@click.command()
@instance_option
@click.option("--queue", "queues", type=click.IntRange(0), multiple=True, help="Only this worker; may be repeated.")
@click.option("--port", "ports", type=click.IntRange(1, 65535), multiple=True, help="Local or peer's; may be repeated.")
@click.option("--program", "programs", multiple=True, metavar="NAME|PID", help="Whose; may be repeated.")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="May be repeated.")
@click.option("--slow", is_flag=True, help="Only those that wait for somebody.")
@click.option("--sort", type=click.Choice(_SORTS), help="By this, the largest first.")
@json_option
def connections(
    instance: str | None,
    queues: tuple[int, ...],
    ports: tuple[int, ...],
    programs: tuple[str, ...],
    states: tuple[str, ...],
    slow: bool,
    sort: str | None,
    as_json: bool,
) -> int:
    """Show TCP connections, listeners, UDP sockets, and connections between programs of this host.

    Everybody sees those of his own programs, root those of all: the program, its bytes not read (rx) or not
    acknowledged (tx), round trip, congestion window, segments sent again, and at the end of a line who lets it wait.
    Sockets that the kernel serves are not here but in `ss`.
    """
    import gc

    from gazelled.base.errors import GazelledError
    from gazelled.base.json_text import json_text
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.connections import Report, matches, ordered, read, totals
    from gazelled.observe.status import read_status

    run_dir = RunDir.of(instance_name(instance))
    status = read_status(run_dir)
    running = [worker.queue_id for worker in status.workers if worker.serves]
    asked = [queue for queue in running if not queues or queue in queues]
    if not asked:
        raise GazelledError(
            f"instance {run_dir.instance}: " + ("no such worker runs" if running else "no worker runs"),
            hint="gazelled status says which there are" if running else f"gazelled start -i {run_dir.instance}",
            exit_code=ExitCode.UNAVAILABLE if status.workers else ExitCode.NOT_RUNNING,
        )
    gc.disable()  # it would look at 50,000 rows again and again, and nothing of them is garbage before the end
    pids = [] if queues else [application.pid for application in status.applications]
    found, unanswered = read(run_dir, asked, pids)
    rows = ordered((row for row in found if matches(row, ports, programs, states, slow)), sort)
    if as_json:
        report: Report = {
            "instance": run_dir.instance, "unanswered": unanswered, "totals": totals(rows), "connections": rows,
        }  # fmt: skip
        click.echo(json_text(report))
    else:
        from gazelled.observe.connections_view import lines

        click.echo("\n".join(lines(rows, totals(rows), unanswered)))
    return ExitCode.OK
