# SPDX-License-Identifier: MulanPSL-2.0
"""The file system of the run directory is full: a start says so, and an instance that runs goes on serving.

 namespace S                                   run directory: a tmpfs of its own
kernel --- gz-NAME (tap) --- workers 0, 1 --- rings, pages, records, logs
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from kit.full_disk import fill, on_a_small_file_system, stopped
from kit.instance import Instance, wait_running
from kit.lab import Kit, Process
from kit.waiting import until

from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_process import find_workers
from gazelled.pages.run_memory import run_dir_bytes

ECHO = Path(__file__).with_name("echo_server.py")
CLIENT = Path(__file__).with_name("echo_client.py")


def log(instance: Instance) -> str:
    return (instance.run_dir / "supervisor.log").read_text()


def served(instance: Instance) -> None:
    """Echo on enough connections that both workers have some."""
    instance.home.run(sys.executable, str(CLIENT), instance.address, "80", "40")


def serving(instance: Instance) -> Process:
    server = instance.spawn(sys.executable, str(ECHO), instance.address, "80")
    server.said("serving")
    return server


def test_a_start_without_room_says_what_it_needs_and_changes_nothing(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, 400)
    before = instance.home.run("ip", "address")
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == 69, done.stderr
    assert f"error: {instance.run_dir}: 2 workers need " in done.stderr, done.stderr
    assert "hint: free some, or enlarge that file system" in done.stderr
    assert instance.home.run("ip", "address") == before
    assert list(instance.run_dir.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=8m", str(instance.run_dir)], check=True, timeout=10)
    instance.start()
    stopped(instance)


def test_a_restart_without_room_leaves_nothing(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, 8 << 10)
    before = instance.home.run("ip", "route", "show", "table", "all")
    instance.start()
    # In a file that a restart keeps, as if others had taken the room.
    with (instance.run_dir / "lock").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    done = instance.call("restart")
    assert done.returncode == 69, done.stderr
    assert "2 workers need " in done.stderr
    assert list(instance.run_dir.iterdir()) == []
    assert instance.home.run("ip", "route", "show", "table", "all") == before


def test_what_plan_says_is_enough(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, -(-run_dir_bytes(2, 1) // 1024))
    instance.start()
    server = serving(instance)
    served(instance)
    server.stop()
    stopped(instance)


def test_workers_come_back_and_supervisors_adopt_while_it_is_full(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, 8 << 10)
    instance.start()
    server = serving(instance)
    served(instance)
    filler = fill(instance)
    served(instance)

    victim = instance.worker(1)["pid"]
    os.kill(victim, signal.SIGKILL)
    died = time.monotonic()
    until(lambda: victim not in [each.process.pid for each in find_workers(instance.run_dir)], "it to be gone")
    until(lambda: RunDir(instance.run_dir).held_queues() == [0, 1], "worker 1 to be back")
    until(lambda: instance.page(1).state.name == "RUNNING", "worker 1 to serve")
    assert time.monotonic() - died < 2.0
    served(instance)
    pids = sorted(each.process.pid for each in find_workers(instance.run_dir))

    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    until(lambda: instance.status()["pid"] is None, "the supervisor to be gone")
    instance.start()
    assert sorted(each.process.pid for each in find_workers(instance.run_dir)) == pids
    served(instance)

    filler.unlink()
    until(lambda: instance.status()["state"] == "running", "the state to be written down again")
    assert "the state is written down again" in log(instance)
    assert wait_running(instance, 1, victim)["pid"] in pids
    assert server.alive
    server.stop()
    stopped(instance)


def test_stop_needs_no_room(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, 8 << 10)
    instance.start()
    fill(instance)
    stopped(instance)


def test_recover_needs_no_room(kit: Kit) -> None:
    instance = on_a_small_file_system(kit, 8 << 10)
    instance.start()
    fill(instance)
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    until(lambda: instance.status()["pid"] is None, "the supervisor to be gone")
    assert instance.call("recover").returncode == 0
    assert list(instance.run_dir.iterdir()) == []
    assert instance.device not in instance.home.run("ip", "link")
