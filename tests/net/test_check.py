# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled check` and `selftest` on the machine itself: faults made for real in a mount namespace, and an echo.

selftest: client -- kernel -- tap -- worker -- echo server
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from kit.instance import on_tap
from kit.lab import Kit
from kit.waiting import until

# The host's files are as they are for everybody else; only this process and what it starts see the faults.
FAULTY = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=64k small "$GAZELLED_RUN_ROOT"
grep -v ^gazelle: /etc/passwd > "$GAZELLED_RUN_ROOT"/passwd
mount --bind "$GAZELLED_RUN_ROOT"/passwd /etc/passwd
mount -t tmpfs none /dev/net
ulimit -n 1000
exec "$@"
"""


def test_faults_made_for_real_are_named(kit: Kit) -> None:
    run_root = kit.directory / "run"
    run_root.mkdir()
    gazelled = [sys.executable, "-m", "gazelled", "check", "--json"]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", FAULTY, "faulty", *gazelled],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "GAZELLED_CONFIG": "/dev/null", "GAZELLED_RUN_ROOT": str(run_root)},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    wrong = {line["subject"]: line["command"] for line in json.loads(done.stdout) if line["level"] != "ok"}
    assert "remount" in wrong[f"room {run_root}"]
    assert "adduser" in wrong["user"]
    assert wrong["tap"] == "modprobe tun"
    assert "nofile" in wrong["limit nofile"]


def test_what_a_crash_left_is_found_and_recovered(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()

    def said() -> dict[str, dict[str, str]]:
        done = instance.call("check", "--json", "-c", str(instance.config))
        return {line["subject"]: line for line in json.loads(done.stdout)}

    mine = f"instance {instance.name}"
    assert said()[mine]["level"] == "ok"
    worker = instance.worker(0)["pid"]
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    until(lambda: instance.status()["pid"] is None, "the supervisor to be gone")
    assert "gazelled start" in said()[mine]["command"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: instance.status()["state"] == "stopped", "the worker to be gone")
    found = said()[mine]
    assert found["level"] == "problem"
    assert found["command"] == f"gazelled recover -i {instance.name}"
    assert instance.call("recover").returncode == 0
    assert mine not in said()


def test_selftest_takes_the_stack_and_leaves_nothing(kit: Kit) -> None:
    home = kit.namespace("s")
    done = home.try_run(sys.executable, "-m", "gazelled", "selftest", "--json", "--seconds", "0.4", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["accelerated"] > 0
    assert said["kernel"] == 0
    assert said["round_trips"] > 0
    assert said["bytes_each_way"] > 0
    assert home.run("ip", "-o", "link").count("\n") <= 1  # lo alone
