# SPDX-License-Identifier: MulanPSL-2.0
"""What is left to a worker once it serves: a user of its own, no capability, and the system calls it needs.

That it needs no others, all tests show: each instance of them runs like this.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest
from kit.instance import Instance, on_nothing, on_tap, on_veth, started, wait_running
from kit.lab import Kit, compiled
from kit.redis import start_redis
from kit.strangers import as_user
from kit.waiting import until

INJECT = Path(__file__).with_name("inject_call.c")
SOCKET, KILL, EXECVE = 41, 62, 59


def threads(pid: int) -> list[dict[str, str]]:
    """Return what /proc says of each thread of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


@pytest.mark.parametrize("port", ["tap", "veth", "nothing"])
def test_a_worker_that_serves_can_do_little(kit: Kit, port: str) -> None:
    instance = on_nothing(kit, 1) if port == "nothing" else started(kit, port, 1)
    if port == "nothing":
        instance.start()
    user = pwd.getpwnam("gazelle")

    def check(row: dict[str, object]) -> None:
        for thread in threads(int(str(row["pid"]))):
            assert thread["Uid"].split() == [str(user.pw_uid)] * 4
            assert thread["Gid"].split() == [str(user.pw_gid)] * 4
            assert thread["Groups"].split() == []
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(thread[name], 16) == 0, (name, thread["Name"])
            assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2"), thread["Name"]
        assert row["confinement"] == {
            "user": "gazelle", "capabilities": "none", "no_new_privs": True, "seccomp": True,
        }  # fmt: skip

    row = instance.worker(0)
    check(row)
    said = instance.home.run(*instance.argv("status"))
    assert "workers: user gazelle, no capabilities, seccomp on\n" in said
    os.kill(row["pid"], signal.SIGKILL)
    check(wait_running(instance, 0, row["pid"]))
    instance.stop()


@pytest.mark.parametrize("call", [(SOCKET, 2, 1), (KILL, 1, 0), (EXECVE, 0, 0)])
def test_a_worker_that_is_taken_over_ends_and_the_log_says_by_which_call(kit: Kit, call: tuple[int, ...]) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    start_redis(instance)
    pid = instance.worker(0)["pid"]
    instance.home.run(str(compiled(INJECT, kit.directory)), str(pid), *map(str, call))
    row = wait_running(instance, 0, pid)
    assert row["restarts"] == 1
    assert "SIGSYS" in row["reason"]
    log = (instance.run_dir / "worker.0.log").read_text()
    assert f"system call {call[0]} (" in log
    until(lambda: answers(instance), "redis to answer again")
    instance.stop()


def answers(instance: Instance) -> bool:
    said = instance.client.try_run("timeout", "2", "redis-cli", "-h", instance.address, "ping")
    return said.stdout.strip() == "PONG"


def test_nobody_looks_into_a_worker_also_not_its_own_user(kit: Kit) -> None:
    instance = on_veth(kit, 1)
    instance.start()
    pid = instance.worker(0)["pid"]
    own = pwd.getpwnam("gazelle").pw_uid
    look = as_user(own, "cat", f"/proc/{pid}/mem", f"/proc/{pid}/maps", f"/proc/{pid}/environ")
    done = subprocess.run(look, capture_output=True, text=True, timeout=10)
    assert done.stderr.count("Permission denied") == 3, done.stderr
    assert done.stdout == ""
    instance.stop()


def test_refusals_without_end_fill_no_log(kit: Kit) -> None:
    """An ordinary user is refused as often as he likes: the log has it, shortly."""
    instance = on_nothing(kit, 1, security="allow_users = []\nallow_groups = []")
    instance.start()
    instance.run_dir.chmod(0o755)
    (instance.run_dir / "worker.0.sock").chmod(0o666)
    ask = """
import socket, sys, time
until = time.monotonic() + 3
count = 0
while time.monotonic() < until:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    count += len(s.recv(256)) > 0
    s.close()
print(count)
"""
    command = ("/usr/bin/python3", "-c", ask, str(instance.run_dir / "worker.0.sock"))
    assert int(instance.home.run(*as_user(61001, *command))) > 1000
    log = (instance.run_dir / "worker.0.log").read_text()
    assert 1 <= log.count("may not attach") <= 25
    instance.stop()
