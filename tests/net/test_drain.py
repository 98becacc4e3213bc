# SPDX-License-Identifier: MulanPSL-2.0
"""A worker is drained, and restarted, while wrk asks nginx: no request fails, and the other worker serves what is new.

wrk -- kernel -- tap -- 2 workers -- nginx, which closes each connection after 20 requests
"""

from __future__ import annotations

import re
from pathlib import Path

from kit.instance import Instance, on_tap, started
from kit.lab import Kit, Process
from kit.redis import start_redis
from kit.waiting import until

PORT = 8080


def start_nginx(instance: Instance, directory: Path) -> Process:
    (directory / "small").write_text("served\n")
    file = directory / "nginx.conf"
    file.write_text(
        f"user root; daemon off; pid {directory}/nginx.pid; error_log stderr warn; events {{ }}\n"
        f"http {{ access_log off; keepalive_requests 20;\n"
        f"server {{ listen {instance.address}:{PORT}; root {directory}; }} }}\n"
    )
    nginx = instance.spawn("nginx", "-c", str(file), "-e", "stderr")

    def answers() -> bool:
        assert nginx.alive, nginx.output()
        asked = instance.client.try_run("curl", "-sf", f"http://{instance.address}:{PORT}/small")
        return asked.stdout == "served\n"

    until(answers, "nginx to answer", 15)
    return nginx


def accepted(instance: Instance, queue: int) -> int:
    return instance.page(queue).counters()["accepted"]


def test_no_request_fails_while_a_worker_is_drained_and_restarted(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    start_nginx(instance, kit.directory)
    wrk = kit.spawn(instance.client, "wrk", "-t1", "-c16", "-d6s", f"http://{instance.address}:{PORT}/small")
    until(lambda: min(accepted(instance, queue) for queue in (0, 1)) > 20, "connections at both workers")
    done = instance.call("drain", "--queue", "1", "--timeout", "20")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "no connection is left"
    assert instance.worker(1)["state"] == "draining"
    new, old = accepted(instance, 0), accepted(instance, 1)
    until(lambda: accepted(instance, 0) > new + 20, "new connections at the other worker")
    assert accepted(instance, 1) == old
    assert wrk.alive, wrk.output()
    before = instance.worker(1)["pid"]
    done = instance.call("restart", "--queue", "1")
    assert done.returncode == 0, done.stderr
    assert instance.worker(1)["pid"] != before
    until(lambda: accepted(instance, 1) > 20, "connections at the new worker")
    wrk.wait(30)
    said = wrk.output()
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    requests = re.search(r"(\d+) requests in", said)
    assert requests is not None
    assert int(requests[1]) > 100, said
    instance.stop()


def test_a_drained_instance_is_not_ready_and_an_old_connection_is_waited_for(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    start_redis(instance)
    assert instance.call("status", "--ready").returncode == 0
    old = kit.spawn(instance.client, "redis-cli", "-h", instance.address, "SUBSCRIBE", "x")
    old.said("subscribe")
    done = instance.call("drain", "--timeout", "0.5")
    assert done.returncode != 0
    assert "1 connections are left after 0.5 s" in done.stderr
    assert instance.call("status", "--ready").returncode == 3
    refused = instance.client.try_run("timeout", "1", "redis-cli", "-h", instance.address, "PING")
    assert "PONG" not in refused.stdout
    assert instance.call("drain", "--undo").returncode == 0
    assert "PONG" in instance.client.run("timeout", "5", "redis-cli", "-h", instance.address, "PING")
    assert instance.call("status", "--ready").returncode == 0
    assert old.alive
    stop = kit.spawn(instance.home, *instance.argv("stop", "--drain", "--timeout", "30"))
    stop.said("connections left: worker 0 1")
    old.kill()
    assert stop.wait(30) == 0
    assert instance.left_over() == []
