# SPDX-License-Identifier: MulanPSL-2.0
"""`[metrics] listen`: a process of its own tells Prometheus what `stats` tells, and lives and dies with the instance.

Prometheus -- UNIX socket -- metrics process -- run directory of 1 worker
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from kit.instance import EVERYBODY, on_tap
from kit.lab import Kit
from kit.redis import load, start_redis
from kit.waiting import until
from prometheus_client.parser import text_string_to_metric_families

from gazelled.instance.run_dir import RunDir
from gazelled.observe import stats


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("metrics", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self.path))


def _served(path: Path) -> dict[str, float] | None:
    """Return the sums of what is served; None if nobody serves."""
    connection = _Connection(path)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        families = list(text_string_to_metric_families(answer.read().decode()))
    except (ConnectionError, FileNotFoundError):
        return None
    finally:
        connection.close()
    return {sample.name: sum(each.value for each in family.samples) for family in families for sample in family.samples}


def _servers(run_dir: Path) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"gazelled.metrics.server" in words and os.fsencode(run_dir) in words:
            yield int(entry.name)


def test_a_process_of_its_own_serves_what_stats_shows(kit: Kit) -> None:
    where = kit.directory / "m"
    instance = on_tap(kit, 1, security=f'{EVERYBODY}\n[metrics]\nlisten = "unix:{where}"')
    instance.start()
    start_redis(instance)
    load(instance, 2000)
    until(lambda: _served(where), "metrics to be served")
    until(lambda: (_served(where) or {}).get("gazelle_worker_connections") == 0, "the clients' connections to end")
    served = _served(where)
    counted = stats.totals(stats.read(RunDir(instance.run_dir)))
    assert served is not None
    assert served["gazelle_worker_accepted_total"] == counted["accepted"] >= 50
    assert served["gazelle_worker_rx_fifo_bytes_total"] == counted["rx_fifo_bytes"]
    assert (served["gazelle_supervisor_up"], served["gazelle_worker_up"], served["gazelle_programs"]) == (1, 1, 1)
    assert instance.call("metrics").stdout.count("gazelle_worker_accepted_total") == 3
    first = next(_servers(instance.run_dir))
    status = Path(f"/proc/{first}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "NoNewPrivs:\t1" in status
    os.kill(first, signal.SIGKILL)
    until(lambda: next(_servers(instance.run_dir), first) != first and _served(where), "it to be served again")
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    until(lambda: not list(_servers(instance.run_dir)), "it to end with its supervisor")
    instance.stop()
    assert _served(where) is None
