# SPDX-License-Identifier: MulanPSL-2.0
"""Putting the host back: at the end of a supervisor's life, and after one that ended before it could."""

from __future__ import annotations

from collections.abc import Callable

from gazelled.base.errors import GazelledError
from gazelled.base.process_identity import ProcessIdentity, end_processes
from gazelled.host import changes, uplink  # noqa: F401  uplink and binding make their kinds known to the journal
from gazelled.host.journal import Journal
from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_process import find_workers
from gazelled.nics import binding  # noqa: F401

Report = Callable[[str], None]

_DRAIN_S = 2.0


def put_back(run_dir: RunDir, report: Report) -> list[str]:
    """Undo the journal and remove the run directory. The caller holds its lock, and no worker is left.

    In the middle of a restart the directory stays, and the routes that keep what is for the stack on this host.
    Returns what could not be undone; the directory then stays, with the journal in it.
    """
    restarts = run_dir.between.exists()
    try:
        problems = Journal(run_dir.journal).undo_where(
            lambda change: not (restarts and isinstance(change, changes.UnreachableSubnet)), report
        )
    except GazelledError as error:
        problems = [error.message]
    if problems:
        return problems
    if restarts:
        run_dir.empty()
    else:
        run_dir.remove()
    return []


def live_workers(run_dir: RunDir) -> list[ProcessIdentity]:
    """Return the workers that run, those included that no supervisor has had the time to write down."""
    state = run_dir.read_state()
    recorded = [worker.process for worker in state.workers if worker.process] if state else []
    found = [worker.process for worker in find_workers(run_dir.path)]
    return list(dict.fromkeys([process for process in recorded if process.alive] + found))


def clean_up(run_dir: RunDir, report: Report) -> list[str]:
    """End the workers a dead supervisor left, and put the host back. As `put_back` otherwise."""
    workers = live_workers(run_dir)
    if workers:
        report(f"ending {len(workers)} worker{'s' if len(workers) > 1 else ''} that no supervisor watches")
    left = end_processes(workers, _DRAIN_S)
    if left:
        return [f"process {process.pid} does not end" for process in left]
    held = run_dir.held_queues()
    if held:  # the host is not taken away from under a worker
        queues = ", ".join(map(str, held))
        return [f"queue {queues}: served by a process that is not to be seen here; stop it in its own PID namespace"]
    return put_back(run_dir, report)
