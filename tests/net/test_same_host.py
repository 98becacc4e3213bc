# SPDX-License-Identifier: MulanPSL-2.0
"""Two attached programs of one host: their bytes take no packet, need no device, and outlive the worker."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from kit.instance import Instance, accelerated, on_nothing, on_tap, wait_running
from kit.lab import Kit
from kit.redis import PORT, start_redis
from kit.waiting import until

NOBODY = "65534"
REQUESTS = 400_000


def benchmark(instance: Instance, host: str, requests: int) -> list[str]:
    return ["redis-benchmark", "-h", host, "-p", str(PORT), "-t", "get", "-c", "50", "-n", str(requests), "--csv"]


def packets(instance: Instance) -> int:
    return sum(instance.page(row["queue_id"]).counters()["rx_packets"] for row in instance.status()["workers"])


def test_the_driver_none_needs_no_device(kit: Kit) -> None:
    instance = on_nothing(kit, 1)
    links = instance.home.run("ip", "-o", "link")
    instance.start()
    assert instance.home.run("ip", "-o", "link") == links
    start_redis(instance, attached=True)
    instance.home.run(*instance.attached(*benchmark(instance, instance.address, REQUESTS)))
    assert packets(instance) == 0
    accelerated(instance)
    instance.stop()


@pytest.mark.parametrize("host", ["10.91.0.2", "127.0.0.1"])
def test_no_packet_between_two_programs_of_one_host(kit: Kit, host: str) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    redis = start_redis(instance, bind="0.0.0.0", attached=True)
    before = packets(instance)
    instance.home.run(*instance.attached(*benchmark(instance, host, REQUESTS)))
    # A connection that took packets would have needed one for each request.
    assert packets(instance) - before < 1000
    assert redis.alive
    instance.stop()


def test_programs_of_different_users_connect(kit: Kit) -> None:
    instance = on_nothing(kit, 1)
    instance.start()
    start_redis(instance, attached=True)
    environment = instance.attach_environment()
    with tempfile.TemporaryDirectory() as directory:  # the checkout may not be theirs to read
        library = Path(shutil.copy(environment["LD_PRELOAD"], directory))
        for path, mode in ((Path(directory), 0o755), (library, 0o644)):
            path.chmod(mode)
        environment["LD_PRELOAD"] = str(library)
        variables = [f"{key}={value}" for key, value in environment.items()]
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", *variables]
        said = instance.home.run(*user, *benchmark(instance, instance.address, 50_000))
    # There is no other way to the stack's address: the kernel knows none.
    assert "GET" in said
    assert "rror" not in said
    instance.stop()


def test_a_conversation_of_two_programs_outlives_the_worker(kit: Kit) -> None:
    instance = on_nothing(kit, 1)
    instance.start()
    redis = start_redis(instance, attached=True)
    client = kit.spawn(instance.home, *instance.attached(*benchmark(instance, instance.address, 10 * REQUESTS)))

    def attached() -> bool:
        return client.pid in [row["pid"] for row in instance.status()["applications"]]

    until(attached, "the client to be attached")
    worker = instance.worker(0)
    os.kill(worker["pid"], signal.SIGKILL)
    assert client.alive
    wait_running(instance, 0, not_pid=worker["pid"])
    assert client.alive
    assert client.wait(60) == 0
    assert "rror" not in client.output(), client.output()
    assert redis.alive
    instance.stop()
