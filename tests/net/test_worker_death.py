# SPDX-License-Identifier: MulanPSL-2.0
"""A process dies under load: what its peers see, what everybody else does not see, and how it comes back.

 namespace S (tap: C as well)                                namespace C
redis-server (one listener, on both workers)         steady_client: 40 connections that
     | liblstack                                     echo numbers all the time, and a
worker 0   worker 1   <- one of them dies            fresh one every 20 ms
     |         |                                             |
   queue 0   queue 1 ------- tap or veth ----------------- kernel
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.instance import Instance, started, wait_running
from kit.lab import Kit, Process
from kit.redis import PORT, ask, start_redis
from kit.steering import owner
from kit.waiting import until

from gazelled.pages.worker_page import WorkerPageState

CLIENT = Path(__file__).with_name("steady_client.py")
CONNECTIONS = 40
RTO = 0.3  # the kernel's least retransmission timeout is 0.2 s, the stack's 0.25 s; and a moment to be scheduled
FRESH_WITHIN = 1.0


@dataclass(frozen=True)
class Seen:
    """What the client saw."""

    lives: list[dict[str, Any]]
    fresh: list[dict[str, Any]]

    def through(self, moment: float) -> list[dict[str, Any]]:
        """Return the connections that existed at a moment."""
        return [life for life in self.lives if life["made"] < moment and (life["ended"] or moment) >= moment]


def start_client(instance: Instance) -> Process:
    arguments = (str(CLIENT), instance.address, str(PORT), str(CONNECTIONS))
    client = instance.kit.spawn(instance.client, sys.executable, *arguments)
    client.said("steady", 20)
    return client


def last_sign(client: Process) -> float:
    assert client.alive, client.output()
    return max((float(line[3:]) for line in client.output().splitlines() if line.startswith("at ")), default=0.0)


def watch_until(client: Process, moment: float) -> None:
    """Let the client go on until its own clock is past a moment."""
    until(lambda: last_sign(client) > moment, "the client to go on", moment - time.monotonic() + 20)


def finish(client: Process) -> Seen:
    assert client.stop() == 0, client.output()
    return Seen(**json.loads(client.output().splitlines()[-1]))


def connections(instance: Instance) -> list[int]:
    return [instance.page(queue_id).counters()["connections"] for queue_id in range(2)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("port", ["tap", "veth"])
def test_a_worker_goes_and_the_others_connections_do_not_notice(
    kit: Kit, port: str, victim: int, how: signal.Signals
) -> None:
    instance = started(kit, port, 2)
    redis = start_redis(instance)
    client = start_client(instance)
    row, plan = instance.worker(victim), instance.plan()

    gone = time.monotonic()
    os.kill(row["pid"], how)
    back_row = wait_running(instance, victim, not_pid=row["pid"])
    back = time.monotonic()
    watch_until(client, back + 1.5)
    seen = finish(client)

    assert back_row["restarts"] == row["restarts"] + 1
    assert redis.alive
    of_worker: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for life in seen.through(gone):
        of_worker[owner(instance, plan, life["port"], PORT)].append(life)
    lost, others = of_worker[victim], of_worker[1 - victim]
    assert lost
    assert others
    assert [life for life in others if life["ended"] is not None] == []
    longest = max(others, key=lambda life: float(life["longest"]))
    assert longest["longest"] <= back - gone + RTO, f"restarted after {back - gone:.3f} s; {longest}"
    # Also those hear of it who only wait for an answer, and would send nothing that could be refused.
    assert [life for life in lost if life["ended"] is None] == []

    fresh = [each for each in seen.fresh if each["began"] >= gone]
    first = min(each["done"] for each in fresh if not each["failed"])
    assert first - gone <= FRESH_WITHIN
    late = [each for each in fresh if each["began"] > gone + FRESH_WITHIN and each["failed"]]
    assert late == []
    # The listener is back on the worker that was away.
    assert instance.page(victim).counters()["accepted"] > 0
    assert [life for life in seen.lives if life["made"] > back and life["ended"] is not None] == []
    client.kill()
    redis.stop()
    instance.stop()


def test_the_supervisor_is_killed_traffic_goes_on_and_start_adopts(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    redis = start_redis(instance)
    client = start_client(instance)
    before = instance.status()
    gone = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: instance.status()["pid"] != before["pid"], "status to notice")
    watch_until(client, gone + 1)
    instance.start()
    after = instance.status()
    watch_until(client, time.monotonic() + 0.5)
    seen = finish(client)
    assert after["state"] == "running"
    assert after["pid"] not in (None, before["pid"])
    assert [row["pid"] for row in after["workers"]] == [row["pid"] for row in before["workers"]]
    assert [life for life in seen.lives if life["ended"] is not None] == []
    assert [each for each in seen.fresh if each["failed"]] == []
    assert redis.alive
    redis.stop()
    instance.stop()


@pytest.mark.parametrize("port", ["tap", "veth"])
def test_redis_is_killed_and_its_peers_see_the_close_at_once(kit: Kit, port: str) -> None:
    instance = started(kit, port, 2)
    redis = start_redis(instance)
    client = start_client(instance)
    gone = time.monotonic()
    os.kill(redis.pid, signal.SIGKILL)
    watch_until(client, gone + 1.5)
    seen = finish(client)
    there = seen.through(gone)
    assert len(there) == CONNECTIONS
    alive_after = [life for life in there if life["ended"] is None or life["ended"] > gone + 0.5]
    assert alive_after == []
    # Nobody listens there any more: a new client is refused, it does not wait.
    refused = [each for each in seen.fresh if each["began"] > gone + 0.5]
    assert refused
    assert all("Refused" in each["failed"] for each in refused), refused
    until(lambda: connections(instance) == [0, 0], "the stack to forget the connections", 15)
    instance.stop()


def test_a_new_worker_refuses_nobody_before_the_listener_is_back(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    redis = start_redis(instance)
    before = instance.worker(0)["pid"]
    os.kill(redis.pid, signal.SIGSTOP)  # it cannot give its listener to the new worker yet
    os.kill(before, signal.SIGKILL)
    until(
        lambda: (page := instance.page(0)).pid not in (0, before) and page.state is WorkerPageState.RUNNING,
        "the new worker",
    )
    asked = instance.client.try_run("timeout", "0.3", "bash", "-c", f"</dev/tcp/{instance.address}/{PORT}")
    os.kill(redis.pid, signal.SIGCONT)
    assert asked.returncode == 124, asked.stderr  # no answer, instead of a refusal
    until(lambda: ask(instance, "PING") == "PONG", "redis to answer by the new worker")
    wait_running(instance, 0, before)
    instance.stop()
