# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled top` shows: samples of an instance, and the lines of a screen made of two of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.process_identity import read_cpu_seconds
from gazelled.instance.run_dir import RunDir
from gazelled.observe import stats
from gazelled.observe.status import Status, read_status

Style = Literal["", "bold", "reverse", "red", "dim"]
Line = tuple[str, Style]
SORTS = {"c": "cpu", "p": "packets", "b": "bytes", "n": "connections"}
_DROPS = ("tx_dropped", "rx_dropped", "steer_dropped", "datagrams_dropped", "alloc_failed", "listen_overflow")


@dataclass(frozen=True)
class Sample:
    """An instance at one moment. `cpu` has the seconds of CPU of each process that was seen."""

    at: float  # of time.monotonic()
    status: Status
    workers: tuple[stats.Worker, ...]
    cpu: Mapping[int, float]


def sample(run_dir: RunDir) -> Sample:
    """Look at an instance; GazelledError if it does not run."""
    status = read_status(run_dir)
    if status.state == "stopped":
        raise GazelledError(
            f"instance {run_dir.instance}: not running",
            hint=f"gazelled start -i {run_dir.instance}",
            exit_code=ExitCode.NOT_RUNNING,
        )
    pids = [worker.pid for worker in status.workers if worker.pid] + [each.pid for each in status.applications]
    cpu = {pid: used for pid in pids if (used := read_cpu_seconds(pid)) is not None}
    return Sample(time.monotonic(), status, tuple(stats.read(run_dir)), cpu)


@dataclass(frozen=True)
class _Row:
    """A worker between two samples: rates per second, and what it has now."""

    queue: int
    name: str
    state: str
    cpu_number: str
    cpu: float | None  # of one CPU
    rates: Mapping[str, float]
    now: Mapping[str, int]

    @property
    def drops(self) -> float:
        return sum(self.rates[name] for name in _DROPS)


def screen(before: Sample, after: Sample, width: int, height: int, sort: str = "queue") -> list[Line]:
    """Return the lines of a screen, not more than fit."""
    seconds = max(after.at - before.at, 1e-3)
    counted = stats.changes(before.workers, after.workers)
    rows = sorted(_rows(before, after, counted, seconds), key=lambda row: _weight(row, sort))
    lines: list[Line] = [*_head(after, counted, seconds, width)]
    concerns = [f"! {concern}" for concern in stats.concerns(counted)]
    lines += [(concern, "red") for concern in concerns[:2]] or [("nothing is wrong since the last look", "dim")]
    lines.append(("", ""))
    programs = list(_programs(before, after, seconds))
    room = height - len(lines) - 1  # the keys
    shown = max(2, min(len(rows) + 1, room - min(len(programs) + 2, max(4, room // 2))))
    lines += list(_workers(rows, width))[:shown]
    lines.append(("", ""))
    lines += programs[: max(0, height - len(lines) - 1)]
    lines += [("", "")] * (height - len(lines) - 1)
    lines.append((f"q quit   sort by: c CPU  p packets  b bytes  n connections  0 queue   (by {sort})", "dim"))
    return [(text[:width], style) for text, style in lines[: height - 1] + lines[-1:]]


def _head(after: Sample, counted: Sequence[stats.Worker], seconds: float, width: int) -> Iterator[Line]:
    status, sums = after.status, stats.totals(counted)
    running = sum(worker.state == "running" for worker in status.workers)
    left = f"gazelled {status.instance} at {status.address}: {running} of {len(status.workers)} workers run"
    left += "" if status.pid or status.hidden else ", nobody watches them"
    yield f"{left:<{max(width - 9, 0)}} {time.strftime('%H:%M:%S')}", "reverse"
    kernel = sum(sum(each.kernel.values()) for each in status.applications)
    yield (
        f"frames in {_short(sums['rx_packets'] / seconds)}/s out {_short(sums['tx_packets'] / seconds)}/s   "
        f"bytes in {_short(sums['rx_bytes'] / seconds)}/s out {_short(sums['tx_bytes'] / seconds)}/s   "
        f"new {_short((sums['accepted'] + sums['connected']) / seconds)}/s",
        "",
    )
    yield (
        f"connections {sums['connections']:,}   sockets: stack "
        f"{sum(each.sockets for each in status.applications):,}, kernel {kernel:,}   "
        f"sent again {_short(sums['retransmits'] / seconds)}/s",
        "",
    )


def _rows(before: Sample, after: Sample, counted: Sequence[stats.Worker], seconds: float) -> Iterator[_Row]:
    known = {worker.queue_id: worker for worker in after.status.workers}
    for worker in counted:
        status = known.get(worker.queue_id)
        pid = status.pid if status else None
        used = _used(before, after, pid) if pid is not None else None
        yield _Row(
            worker.queue_id,
            worker.name,
            status.state if status else "unknown",
            "-" if status is None or status.cpu is None else str(status.cpu),
            None if used is None else used / seconds,
            {name: value / seconds for name, value in worker.counters.items()},
            worker.counters,
        )


def _used(before: Sample, after: Sample, pid: int) -> float | None:
    """Return the seconds of CPU that a process has used between two samples, None if it was not in both."""
    first, last = before.cpu.get(pid), after.cpu.get(pid)
    return None if first is None or last is None else last - first


def _weight(row: _Row, sort: str) -> tuple[float, int]:
    keys = {
        "cpu": row.cpu or 0.0,
        "packets": row.rates["rx_packets"] + row.rates["tx_packets"],
        "bytes": row.rates["rx_bytes"] + row.rates["tx_bytes"],
        "connections": float(row.now["connections"]),
    }
    return -keys.get(sort, 0.0), row.queue


def _workers(rows: Sequence[_Row], width: int) -> Iterator[Line]:
    wide = width >= 120
    more = f"{'MBUFS':>8}{'SLEEPS/S':>10}{'AGAIN/S':>9}{'STEERED/S':>11}" if wide else ""
    yield (
        f"{'WORKER':<18}{'CPU':>4}{'%CPU':>6}{'RX/S':>8}{'TX/S':>8}{'IN/S':>8}{'OUT/S':>8}{'CONNS':>7}{'DROPS':>7}{more}",
        "bold",
    )
    for row in rows:
        if row.state != "running":
            yield f"{row.name:<18}{row.cpu_number:>4}  {row.state}", "red"
            continue
        cpu = "-" if row.cpu is None else f"{100 * row.cpu:.0f}"
        rate = {name: _short(value) for name, value in row.rates.items()}
        more = (
            f"{_short(row.now['mbufs_free']):>8}{rate['sleeps']:>10}{rate['retransmits']:>9}{rate['steered_out']:>11}"
            if wide
            else ""
        )
        yield (
            f"{row.name[:17]:<18}{row.cpu_number:>4}{cpu:>6}{rate['rx_packets']:>8}{rate['tx_packets']:>8}"
            f"{rate['rx_bytes']:>8}{rate['tx_bytes']:>8}{_short(row.now['connections']):>7}{_short(row.drops):>7}{more}",
            "red" if row.drops else "",
        )


def _programs(before: Sample, after: Sample, seconds: float) -> Iterator[Line]:
    yield f"{'PID':>8}{'%CPU':>6}{'STACK':>8}{'KERNEL':>8}  PROGRAM", "bold"
    for each in sorted(after.status.applications, key=lambda each: -each.sockets):
        used = _used(before, after, each.pid)
        cpu = "-" if used is None else f"{100 * used / seconds:.0f}"
        kernel = sum(each.kernel.values())
        yield f"{each.pid or '-':>8}{cpu:>6}{each.sockets:>8}{kernel:>8}  {each.command}", ""


def _short(value: float) -> str:
    """Return a number in at most six characters."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 9999.5:
            return f"{value:.0f}{unit}" if unit == "" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"
