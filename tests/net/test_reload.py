# SPDX-License-Identifier: MulanPSL-2.0
"""A configuration is taken while redis serves: some of it at once, the rest is named, and of a bad one nothing.

redis-benchmark -- kernel -- tap -- worker -- redis-server
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.redis import PORT, start_redis
from kit.strangers import STRANGER, refused_by_the_worker
from kit.waiting import until

from gazelled.base.exitcode import ExitCode


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def sleeps(instance: Instance) -> int:
    return instance.page(0).counters()["sleeps"]


def test_what_can_change_changes_under_load_and_no_connection_is_reset(kit: Kit) -> None:
    instance = on_tap(kit, 1, stack="spin_us = 50", security='allow_users = ["root"]\nallow_groups = []')
    instance.start()
    start_redis(instance)
    load = kit.spawn(
        instance.client, "redis-benchmark", "-h", instance.address, "-p", str(PORT), "-t", "get", "-n", "40000", "-q"
    )  # fmt: skip
    until(lambda: instance.page(0).counters()["accepted"] > 40, "the load's connections")
    worker = instance.worker(0)["pid"]
    assert "denied" in refused_by_the_worker(instance, STRANGER)  # not even the directory is open to him

    rewrite(instance.config, "spin_us = 50", 'spin_us = 20\nidle = "poll"\nrpc_number = 7\ntcp_conn_count = 1600')
    rewrite(instance.config, '["root"]', f"[{STRANGER}]")
    checked = instance.call("config", "check", str(instance.config))
    assert checked.returncode == 0, checked.stderr
    done = instance.call("reload")
    assert done.returncode == 0, done.stderr
    for said in (checked.stdout, done.stderr):
        assert "at once: stack.spin_us: 50 -> 20\n" in said
        assert "at once: stack.rpc_number: 4 -> 7\n" in said
        assert "needs a restart: workers[0].mempool" in said
    assert instance.plan()["stack"]["idle"] == "poll"
    assert "denied" not in refused_by_the_worker(instance, STRANGER)
    load.wait(60)
    assert "rror" not in load.output()
    assert instance.page(0).counters()["resets_sent"] == 0
    asleep = sleeps(instance)
    turns = instance.page(0).counters()["turns"]
    until(lambda: instance.page(0).counters()["turns"] > turns + 10_000, "a worker that polls")
    assert sleeps(instance) == asleep

    rewrite(instance.config, "rpc_number = 7", "rpc_number = 0\nspin = 1")
    before = instance.plan()
    refused = instance.call("reload")
    assert refused.returncode == ExitCode.CONFIG
    assert "rpc_number" in refused.stderr
    assert instance.call("config", "check", str(instance.config)).returncode == ExitCode.CONFIG
    os.kill(instance.supervisor_pid(), signal.SIGHUP)
    until(lambda: "configuration not taken" in instance.logs(), "the supervisor's word")
    assert instance.plan() == before
    rewrite(instance.config, "rpc_number = 0\nspin = 1", "")
    rewrite(instance.config, 'idle = "poll"', "")
    assert instance.call("reload").returncode == 0
    until(lambda: sleeps(instance) > asleep, "a worker that sleeps")
    assert (instance.worker(0)["pid"], instance.worker(0)["restarts"]) == (worker, 0)
    instance.stop()
