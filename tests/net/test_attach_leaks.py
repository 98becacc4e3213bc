# SPDX-License-Identifier: MulanPSL-2.0
"""Programs are killed by the thousand, and nothing of them stays: no memory, no socket, no id, no descriptor.

          namespace S
small_program x 1000, redis x 20      echo_server
     | liblstack                          |
stack 10.91.0.2, 2 workers           kernel 10.91.0.1
     +----------- tap, 2 queues ----------+
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.holdings import Holdings, assert_nothing_lost, holdings, settled
from kit.instance import Instance, started
from kit.lab import Kit, compiled
from kit.redis import load, start_redis
from kit.waiting import until

KILLS = 1000
AT_ONCE = 10
REDIS_KILLS = 20
ECHO_PORT = 7000


def at_rest(instance: Instance) -> list[Holdings]:
    """Wait until the workers hold nothing of any program, and return what they hold then."""

    def look() -> bool:
        each = [holdings(instance, queue_id) for queue_id in range(2)]
        return not any(any(worker.gauges.values()) or worker.programs for worker in each)

    until(look, "the workers to forget the killed programs", 20)
    held = settled(instance)
    assert look()
    return held


def kill_programs(instance: Instance, program: Path, environment: dict[str, str], count: int) -> None:
    """Start programs a few at a time, let each use the stack, and kill it in the middle of that."""
    for _ in range(count // AT_ONCE):
        started = [
            subprocess.Popen(
                instance.home.argv(
                    "env", *(f"{key}={value}" for key, value in environment.items()),
                    str(program), instance.address, str(7100 + number), instance.peer, str(ECHO_PORT),
                ),
                stdout=subprocess.PIPE,
            )
            for number in range(AT_ONCE)
        ]  # fmt: skip
        try:
            for each in started:
                assert each.stdout is not None
                assert each.stdout.readline() == b"ready\n"
        finally:
            for each in started:
                each.kill()
                each.wait()
                assert each.stdout is not None
                each.stdout.close()


def test_a_thousand_killed_programs_leave_nothing(kit: Kit) -> None:
    program = compiled(Path(__file__).with_name("small_program.c"), kit.directory)
    instance = started(kit, "tap", 2)
    echo = kit.spawn(
        instance.client, sys.executable, str(Path(__file__).with_name("echo_server.py")), instance.peer, str(ECHO_PORT)
    )
    echo.said("serving")
    environment = instance.attach_environment()
    kill_programs(instance, program, environment, 10 * AT_ONCE)  # what is made once is made now
    before = at_rest(instance)
    pids = [row["pid"] for row in instance.status()["workers"]]
    kill_programs(instance, program, environment, KILLS)
    assert_nothing_lost(before, at_rest(instance))
    status = instance.status()
    assert [row["pid"] for row in status["workers"]] == pids, "a worker did not survive"
    assert status["applications"] == []
    attached = [instance.page(queue_id).counters()["attached_total"] for queue_id in range(2)]
    assert min(attached) >= KILLS, attached
    instance.stop()


def test_twenty_killed_redis_leave_nothing(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    before: list[Holdings] = []
    for _ in range(REDIS_KILLS):
        redis = start_redis(instance)
        load(instance, 5_000)
        redis.kill()
        before = before or at_rest(instance)
    assert_nothing_lost(before, at_rest(instance))
    instance.stop()
