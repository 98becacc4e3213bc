# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled stats` on a running instance: its counts are what redis's clients on the other side of the tap know.

redis-benchmark -- kernel -- tap -- 2 workers -- redis-server
"""

from __future__ import annotations

import json
import os
import signal

from kit.instance import on_tap, wait_running
from kit.lab import Kit
from kit.redis import load, start_redis
from kit.waiting import until

REQUESTS = 20_000


def test_counts_agree_with_the_other_side_and_outlive_the_worker(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    start_redis(instance)
    device = f"/sys/class/net/{instance.device}/statistics"

    def kernel(counter: str) -> int:
        return int(instance.client.run("cat", f"{device}/{counter}"))

    def said(*options: str) -> dict[str, dict[str, int]]:
        counted: dict[str, dict[str, int]] = json.loads(instance.call("stats", "--json", *options).stdout)
        return counted

    load(instance, REQUESTS)
    until(lambda: said()["totals"]["connections"] == 0, "the clients' connections to end")
    totals = said()["totals"]
    assert totals["accepted"] >= 50
    assert totals["rx_fifo_bytes"] > 20 * REQUESTS
    assert totals["tx_packets"] == kernel("rx_packets")  # what the workers sent is what the kernel got from the tap
    taken = totals["rx_packets"] - totals["steered_in"]  # a frame for all workers comes to each
    assert REQUESTS < taken <= kernel("tx_packets")
    shown = instance.call("stats").stdout
    assert "accepted" in shown
    assert "gazellelstack01" in shown
    assert "supervisor: gazellelstack01: ready" in instance.call("logs", "--since", "10m").stdout
    assert "worker 1: " in (of_one := instance.call("logs", "--queue", "1").stdout)
    assert "worker 0: " not in of_one
    one = instance.worker(0)["pid"]
    instance.call("stats", "--queue", "1")
    os.kill(instance.supervisor_pid(), signal.SIGSTOP)  # so that the dead worker stays dead for a moment
    try:
        os.kill(one, signal.SIGKILL)
        assert said("--queue", "0")["totals"]["accepted"] > 0
    finally:
        os.kill(instance.supervisor_pid(), signal.SIGCONT)
    wait_running(instance, 0, one)
    instance.stop()
    assert "not running" in instance.call("stats").stderr
