# SPDX-License-Identifier: MulanPSL-2.0
"""Workers that take no new connections any more: drained, and one of them restarted, without an outage.

The other workers take what would have come to it. One that is drained stays so until it is told otherwise or restarted.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import close

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance.reach import answering
from gazelled.instance.run_dir import RunDir, live_supervisor
from gazelled.instance.worker_control import DRAIN, WorkerControl, message
from gazelled.pages.worker_page import WorkerPage, WorkerPageState

Report = Callable[[str], None]

_LOOK_S = 0.05
_SAY_S = 1.0  # between two sentences about the count
_BACK_S = 30.0  # a worker that was ended is there again


def workers_of(run_dir: RunDir, queues: Sequence[int]) -> list[int]:
    """Return which workers are meant: those named, or all that run; GazelledError if one does not run."""
    running = sorted(answering(run_dir))
    missing = [queue for queue in queues if queue not in running]
    if missing or not running:
        raise GazelledError(
            f"instance {run_dir.instance}: " + (f"no worker {missing[0]} runs" if missing else "not running"),
            hint=f"gazelled status -i {run_dir.instance} says which do",
            exit_code=ExitCode.UNAVAILABLE if running else ExitCode.NOT_RUNNING,
        )
    return sorted(set(queues)) or running


def tell(run_dir: RunDir, queues: Sequence[int], drains: bool) -> None:
    """Have workers take no new connections, or take them again."""
    for queue in queues:
        control = WorkerControl(run_dir, queue)
        try:
            control.ask(message(DRAIN, number=int(drains)))
        finally:
            control.close()


@contextmanager
def _pages(run_dir: RunDir, queues: Sequence[int]) -> Iterator[dict[int, WorkerPage]]:
    pages = {queue: WorkerPage(run_dir.worker_page(queue)) for queue in queues}
    try:
        yield pages
    finally:
        for page in pages.values():
            page.close()


def count_sentence(left: Mapping[int, int]) -> str:
    """Say how many connections there are."""
    each = ", ".join(f"worker {queue} {count}" for queue, count in left.items())
    return f"connections left: {each}" if any(left.values()) else "no connection is left"


def drain(run_dir: RunDir, queues: Sequence[int], timeout: float | None, report: Report) -> dict[int, int]:
    """Have workers take no new connections, and wait for the old to end; return how many are left."""
    tell(run_dir, queues, True)
    began, said, said_at = time.monotonic(), "", float("-inf")
    with _pages(run_dir, queues) as pages:
        while True:
            left = {queue: page.counters()["connections"] for queue, page in pages.items()}
            now, sentence = time.monotonic(), count_sentence(left)
            over = not any(left.values()) or (timeout is not None and now - began >= timeout)
            if sentence != said and (over or now - said_at >= _SAY_S):
                said, said_at = sentence, now
                report(sentence)
            if over:
                return left
            for queue, page in pages.items():
                if page.state is not WorkerPageState.DRAINING:
                    raise GazelledError(f"worker {queue}: it is not drained any more: it was told so, or has died")
            time.sleep(_LOOK_S)


def restart_worker(run_dir: RunDir, queue: int, timeout: float | None, report: Report) -> None:
    """Drain one worker, end it, and return when its successor serves."""
    record = run_dir.read_state()
    if record is None or live_supervisor(record) is None:
        raise GazelledError(
            f"instance {run_dir.instance}: no supervisor would start it again", hint="gazelled start brings one back"
        )
    (queue,) = workers_of(run_dir, [queue])
    left = drain(run_dir, [queue], timeout, report)
    if left[queue]:
        report(f"worker {queue}: {left[queue]} connections are reset")
    process = next((worker.process for worker in record.workers if worker.queue_id == queue), None)
    pidfd = process.open() if process is not None else None
    if process is None or pidfd is None:
        raise GazelledError(f"worker {queue}: it has just died by itself", hint="gazelled status says why")
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    finally:
        close(pidfd)
    deadline = time.monotonic() + _BACK_S
    with _pages(run_dir, [queue]) as pages:
        while pages[queue].pid == process.pid or pages[queue].state is not WorkerPageState.RUNNING:
            if time.monotonic() > deadline:
                raise GazelledError(
                    f"worker {queue}: not ready {_BACK_S:g} s after it was ended", hint="gazelled status"
                )
            time.sleep(_LOOK_S)
        report(f"worker {queue} runs again, pid {pages[queue].pid}")
