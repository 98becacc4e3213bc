# SPDX-License-Identifier: MulanPSL-2.0
"""What one instance is like now, as Prometheus's text (exposition format 0.0.4).

Written here and not by Prometheus's library, which takes longer to load than all of a command may take; a test reads
the text with that library.
"""

from __future__ import annotations

from collections.abc import Iterator

from gazelled import __version__
from gazelled.base.errors import GazelledError
from gazelled.base.process_identity import read_cpu_seconds
from gazelled.instance.run_dir import RunDir
from gazelled.metrics import families
from gazelled.metrics.families import Family
from gazelled.observe import stats
from gazelled.observe.status import Status, read_status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FATES = ("taken", "kept", "fallen_back", "silenced")
_Sample = tuple[tuple[str, ...], float]  # the values of the family's labels, and the value


def text(run_dir: RunDir) -> str:
    """Return all metrics of an instance; of one that does not run only that."""
    samples: dict[Family, list[_Sample]] = {family: [] for family in families.FAMILIES}
    for family, which, value in _samples(run_dir):
        samples[family].append((which, value))
    lines = []
    for family, found in samples.items():
        if not found:
            continue
        lines += [f"# HELP {family.name} {family.meaning}", f"# TYPE {family.name} {family.kind}"]
        for values, value in found:
            pairs = zip(("stack", *family.labels), (run_dir.instance, *values), strict=True)
            labels = ",".join(f'{name}="{_escaped(each)}"' for name, each in pairs)
            lines.append(f"{family.name}{{{labels}}} {value:.10g}" if value % 1 else
                         f"{family.name}{{{labels}}} {int(value)}")  # fmt: skip
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _samples(run_dir: RunDir) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    status = read_status(run_dir)
    yield families.BUILD, (__version__,), 1
    yield families.SUPERVISED, (), float(status.pid is not None)
    yield from _workers(status)
    try:
        counted = stats.read(run_dir)
    except GazelledError:
        return  # it does not run
    for worker in counted:
        which = (str(worker.queue_id), worker.name)
        yield families.MBUFS, which, worker.mbufs
        for name, family in families.OF_COUNTERS.items():
            yield family, which, worker.counters[name]
    yield from _programs(status)


def _workers(status: Status) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    for worker in status.workers:
        which = (str(worker.queue_id), worker.name)
        yield families.RUNNING, which, float(worker.state == "running")
        yield families.RESTARTS, which, worker.restarts
        used = read_cpu_seconds(worker.pid) if worker.pid is not None else None
        if used is not None:
            yield families.CPU, which, used


def _programs(status: Status) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    yield families.PROGRAMS, (), len(status.applications)
    yield families.STACK_SOCKETS, (), sum(each.sockets for each in status.applications)
    kernel: dict[str, int] = {}
    for application in status.applications:
        for reason, count in application.kernel.items():
            kernel[reason] = kernel.get(reason, 0) + count
    for reason, count in sorted(kernel.items()):
        yield families.KERNEL_SOCKETS, (reason,), count
    for fate in _FATES if status.uplink else ():
        if status.uplink and fate in status.uplink:
            yield families.UPLINK, (fate,), float(status.uplink[fate])
