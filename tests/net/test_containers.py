# SPDX-License-Identifier: MulanPSL-2.0
"""An instance seen from a container: another PID namespace, and a run directory that is mounted into it.

 namespace S
kernel --- gz-NAME (tap) --- worker 0 .. sockets in the run directory .. | PID namespace | gazelled, a program
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kit.instance import Instance, on_tap
from kit.lab import Kit

ECHO = Path(__file__).with_name("echo_server.py")
CLIENT = Path(__file__).with_name("echo_client.py")
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def contained(instance: Instance, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a gazelled command in a PID namespace of its own."""
    return instance.home.try_run(*CONTAINER, *instance.argv(*command), timeout=60)


def test_another_pid_namespace_is_told_what_it_can_see(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    seen = contained(instance, "status", "--json")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    status = json.loads(seen.stdout)
    assert (status["state"], status["hidden"], status["pid"]) == ("running", True, None)
    assert [(row["state"], row["pid"]) for row in status["workers"]] == [("running", None)] * 2
    assert "in another PID namespace" in contained(instance, "status").stdout
    assert instance.status()["hidden"] is False

    refused = contained(instance, "stop")
    assert refused.returncode == 69, refused.stderr
    assert f"instance {instance.name} runs in another PID namespace" in refused.stderr
    assert contained(instance, "start", "-c", str(instance.config)).returncode == 0, "it runs already"
    assert instance.status()["state"] == "running"
    instance.stop()
    assert contained(instance, "status").returncode == 3


def test_a_program_in_another_pid_namespace_serves(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    server = kit.spawn(instance.home, *CONTAINER, *instance.attached(sys.executable, str(ECHO), instance.address, "80"))
    server.said("serving")
    instance.home.run(sys.executable, str(CLIENT), instance.address, "80", "20")
    server.kill_group()
    instance.stop()


def test_a_mounted_run_directory_is_that_of_the_restarted_instance(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    inode = instance.run_dir.stat().st_ino
    go = kit.directory / "go"
    run = instance.attached(sys.executable, str(ECHO), instance.address, "80")
    script = 'mount --bind "$0" "$0" && echo mounted && until [ -e "$1" ]; do sleep 0.05; done; shift; exec "$@"'
    server = kit.spawn(instance.home, "unshare", "--mount", "sh", "-c", script, str(instance.run_dir), str(go), *run)
    server.said("mounted")
    assert instance.call("restart").returncode == 0
    assert instance.run_dir.stat().st_ino == inode
    go.touch()
    server.said("serving")
    instance.home.run(sys.executable, str(CLIENT), instance.address, "80", "20")
    server.stop()
    instance.stop()
