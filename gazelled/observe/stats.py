# SPDX-License-Identifier: MulanPSL-2.0
"""What the workers have counted: read from their pages, which costs them nothing and works when they hang or died."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance.run_dir import RunDir
from gazelled.instance.running_plan import running_plan
from gazelled.pages.counters import COUNTERS
from gazelled.pages.worker_page import WorkerPage

STEERED_MAX = 0.05  # of the frames: beyond, the queues do not divide connections as the workers do
RETRANSMITS_MAX = 0.01  # of the frames sent
MBUFS_FREE_MIN = 0.05  # of a worker's


@dataclass(frozen=True)
class Worker:
    """The counters of one worker at one moment."""

    queue_id: int
    name: str
    pid: int
    mbufs: int  # it has in all
    counters: Mapping[str, int]


@dataclass(frozen=True)
class Concern:
    """Something that is wrong, how much of it, and what to do."""

    counter: str
    value: int
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.counter} {self.value:,}: {self.reason}; {self.remedy}"


# What nobody wants to see, in the order of weight.
_UNWANTED = (
    ("alloc_failed", "workers had no packet buffers left", "raise stack.mbuf_count_per_conn or stack.tcp_conn_count"),
    ("listen_overflow", "programs accept too slowly", "a longer backlog (listen()), or more processes that accept"),
    ("tx_dropped", "the port took frames too slowly; TCP sent them again", "raise port.tx_queue_size"),
    ("steer_dropped", "a worker could not take what others handed to it", "see whether it runs: gazelled status"),
    ("datagrams_dropped", "programs read datagrams too slowly", "a larger SO_RCVBUF, or a faster reader"),
    ("rx_bad_checksum", "frames arrive damaged", "look at the cable, the NIC and its offloads (ethtool -k)"),
    ("detached_hostile", "a process broke the shared memory's protocol", "the worker's log has its pid and why"),
    ("syncookies_sent", "too many handshakes were half open", "nothing while clients connect: a burst, or a flood"),
)


def meaning(name: str) -> str:
    """Return a line that says what a counter counts; GazelledError if there is none of that name."""
    for counter in COUNTERS:
        if counter.name == name:
            return f"{name} ({counter.unit}, {counter.kind}): {counter.meaning}"
    names = ", ".join(counter.name for counter in COUNTERS)
    raise GazelledError(f"{name}: no counter of that name", hint=f"one of: {names}", exit_code=ExitCode.USAGE)


def read(run_dir: RunDir, queues: Sequence[int] = ()) -> list[Worker]:
    """Return what the workers of an instance have counted; `queues`: only these. GazelledError if there are none."""
    plan = running_plan(run_dir)
    known = {worker.queue_id: worker for worker in plan.workers}
    unknown = [queue for queue in queues if queue not in known]
    if unknown:
        raise GazelledError(
            f"queue {unknown[0]}: instance {run_dir.instance} has none of that number",
            hint=f"0 to {max(known)}",
            exit_code=ExitCode.USAGE,
        )
    found = []
    for queue_id, worker in known.items():
        if queues and queue_id not in queues:
            continue
        try:
            page = WorkerPage(run_dir.worker_page(queue_id))
        except FileNotFoundError:
            continue  # it has never started
        try:
            found.append(Worker(queue_id, worker.name, page.pid, worker.mempool.mbufs, page.counters()))
        finally:
            page.close()
    return found


def changes(before: Sequence[Worker], after: Sequence[Worker]) -> list[Worker]:
    """Return what was counted between two looks; gauges as they are now. A worker that began anew counts from 0."""
    earlier = {(worker.queue_id, worker.pid): worker.counters for worker in before}
    zero = dict.fromkeys((counter.name for counter in COUNTERS), 0)
    return [
        Worker(
            worker.queue_id,
            worker.name,
            worker.pid,
            worker.mbufs,
            {
                counter.name: worker.counters[counter.name]
                - (earlier.get((worker.queue_id, worker.pid), zero)[counter.name] if counter.kind == "total" else 0)
                for counter in COUNTERS
            },
        )
        for worker in after
    ]


def totals(workers: Sequence[Worker]) -> dict[str, int]:
    """Return the sum over the workers."""
    return {counter.name: sum(worker.counters[counter.name] for worker in workers) for counter in COUNTERS}


def concerns(workers: Sequence[Worker]) -> Iterator[Concern]:
    """Yield what is wrong, the worst first."""
    sums = totals(workers)
    for name, reason, remedy in _UNWANTED:
        if sums[name]:
            yield Concern(name, sums[name], reason, remedy)
    for worker in workers:
        free = worker.counters["mbufs_free"]
        if free < MBUFS_FREE_MIN * worker.mbufs:
            yield Concern(
                "mbufs_free", free, f"of {worker.mbufs:,} in {worker.name}", "raise stack.mbuf_count_per_conn"
            )
    if sums["steered_out"] > STEERED_MAX * max(sums["rx_packets"], 1):
        share = sums["steered_out"] / max(sums["rx_packets"], 1)
        yield Concern(
            "steered_out", sums["steered_out"], f"{share:.0%} of the frames came in at another worker's queue",
            "the device spreads connections otherwise than the plan; more programs per worker, or one worker",
        )  # fmt: skip
    if sums["retransmits"] > RETRANSMITS_MAX * max(sums["tx_packets"], 1):
        share = sums["retransmits"] / max(sums["tx_packets"], 1)
        yield Concern("retransmits", sums["retransmits"], f"{share:.1%} of the frames sent", "the path loses frames")


def lines(workers: Sequence[Worker], seconds: float | None, every: bool) -> Iterator[str]:
    """Yield a table as a person reads it. `seconds`: the counters are of so long, and shown as rates."""
    for concern in concerns(workers):
        yield f"attention: {concern}"
    sums = totals(workers)
    columns = [("all", sums), *((worker.name, worker.counters) for worker in workers if len(workers) > 1)]
    width = max(12, *(len(name) for name, _ in columns)) + 2
    yield f"{'':<20}" + "".join(f"{name:>{width}}" for name, _ in columns) + "  unit"
    for counter in COUNTERS:
        if not every and not sums[counter.name]:
            continue
        per_second = seconds is not None and counter.kind == "total"
        cells = "".join(
            f"{values[counter.name] / seconds if per_second and seconds else values[counter.name]:>{width},.0f}"
            for _, values in columns
        )
        unit = f"{counter.unit}/s" if per_second else counter.unit + (" now" if counter.kind == "gauge" else "")
        yield f"{counter.name:<20}{cells}  {unit}"


def as_json(instance: str, workers: Sequence[Worker], seconds: float | None) -> dict[str, object]:
    """Return what `stats --json` prints; `seconds`: how long the counters are of, None since each worker's start."""
    return {
        "instance": instance,
        "seconds": seconds,
        "totals": totals(workers),
        "workers": [
            {"queue_id": each.queue_id, "name": each.name, "pid": each.pid, "counters": dict(each.counters)}
            for each in workers
        ],
        "concerns": [vars(concern) for concern in concerns(workers)],
    }
