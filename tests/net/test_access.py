# SPDX-License-Identifier: MulanPSL-2.0
"""Who may attach: root, and those [security] names. The others are told so in one sentence, and see nothing.

root, a member of gazelle, a stranger                 all on one host, the instance on a tap
     gazelled run -- redis-server  ... worker ... tap --- the host's kernel: redis-cli
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
from kit.instance import EVERYBODY, Instance, on_nothing, on_tap, wait_running
from kit.lab import Kit
from kit.strangers import GUEST, STRANGER, Installed, as_user, own_gid, refused_by_the_worker
from kit.waiting import until

GROUP = "allow_groups = ['gazelle']"
REDIS = (
    "redis-server",
    "--port",
    "6379",
    "--save",
    "",
    "--appendonly",
    "no",
    "--protected-mode",
    "no",
    "--dir",
    "/tmp",
)


def modes(instance: Instance) -> dict[str, tuple[int, int]]:
    """Return mode and group of what is in the run directory, and of itself as "."."""
    found = {path.name: path.stat() for path in instance.run_dir.iterdir()}
    found["."] = instance.run_dir.stat()
    return {name: (stat.S_IMODE(info.st_mode), info.st_gid) for name, info in found.items()}


def serves(instance: Instance) -> bool:
    said = instance.client.try_run("timeout", "2", "redis-cli", "-h", instance.address, "ping")
    return said.stdout.strip() == "PONG"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_member_of_the_group_runs_redis_and_a_stranger_is_told_what_to_do(kit: Kit, workers: int) -> None:
    instance = on_tap(kit, workers, security=GROUP)
    instance.start()
    installed = Installed(instance)
    member = as_user(GUEST, *installed.argv("run", "--", *REDIS, "--bind", instance.address), groups=[own_gid()])
    redis = kit.spawn(instance.home, *member)
    until(lambda: serves(instance), "redis to answer")
    assert instance.status()["sockets"]["kernel"] == {}
    # The members see what runs, a stranger does not: neither the instance nor its files.
    instance.home.run(*as_user(GUEST, *installed.argv("status"), groups=[own_gid()]))
    for command in (("run", "--", "true"), ("status",)):
        done = instance.home.try_run(*as_user(STRANGER, *installed.argv(*command)))
        assert done.returncode == 77, done.stderr
        assert done.stderr == (
            f"error: user {STRANGER} may not attach to instance {instance.name}\n"
            f"hint: `adduser {STRANGER} gazelle`, then log in again\n"
        )
    done = instance.home.try_run(
        *as_user(STRANGER, *installed.argv("run", "--fallback", "kernel", "--", "echo", "ran"))
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr == (
        f"gazelled: user {STRANGER} may not attach to instance {instance.name}; echo runs on the kernel\n"
    )
    # A worker that comes back lets the same in, and nobody else.
    pid = instance.worker(0)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_running(instance, 0, pid)
    until(lambda: serves(instance), "redis to answer again")
    assert redis.alive
    redis.stop()
    instance.stop()


def test_files_and_sockets_are_for_those_who_may_attach(kit: Kit) -> None:
    instance = on_tap(kit, 2, security=GROUP)
    instance.start()
    found = modes(instance)
    assert found["."] == (0o750, own_gid())
    for queue in (0, 1):
        assert found[f"worker.{queue}.sock"] == (0o660, own_gid())
        assert found[f"worker.{queue}.page"] == (0o640, own_gid())
    assert found["group.0"] == (0o640, own_gid())
    assert not any(mode & 0o002 for mode, _ in found.values())
    instance.stop()


def test_files_and_sockets_are_for_everybody_if_the_configuration_says_so(kit: Kit) -> None:
    instance = on_nothing(kit, 1, security=EVERYBODY)
    instance.start()
    found = modes(instance)
    assert (found["."][0], found["worker.0.sock"][0], found["worker.0.page"][0]) == (0o755, 0o666, 0o644)
    instance.stop()


def test_several_users_and_groups_get_in_by_an_access_list(kit: Kit) -> None:
    instance = on_nothing(kit, 1, security=f"allow_users = [{GUEST}]\nallow_groups = ['gazelle', 61003]")
    instance.start()
    installed = Installed(instance)
    try_it = installed.argv("run", "--explain", "--", "/usr/bin/python3", "-c", LISTEN.format(address=instance.address))
    for who in (as_user(GUEST, *try_it), as_user(STRANGER, *try_it, groups=[61003])):
        done = instance.home.try_run(*who)
        assert (done.returncode, done.stdout) == (0, "listens\n"), done.stderr
        assert "1  on the stack\n" in done.stderr, done.stderr
    done = instance.home.try_run(*as_user(STRANGER, *installed.argv("run", "--", "true")))
    assert done.returncode == 77
    assert "hint: [security] in the configuration of instance" in done.stderr
    instance.stop()


LISTEN = """
import socket
s = socket.socket()
s.bind(("{address}", 4000))
s.listen()
print("listens")
"""


def test_the_worker_itself_refuses_with_a_reason(kit: Kit) -> None:
    instance = on_nothing(kit, 1, security=f"allow_users = [{GUEST}]\nallow_groups = []")
    instance.start()
    instance.run_dir.chmod(0o755)  # as if somebody had got into it
    for _ in range(50):  # whether the answer is there before the question or after it
        assert f"user {STRANGER} may not attach to this instance" in refused_by_the_worker(instance, STRANGER)
    assert "may not" not in refused_by_the_worker(instance, GUEST)
    log = (instance.run_dir / "worker.0.log").read_text()
    assert f"refused: user {STRANGER} may not attach" in log
    instance.stop()


def test_a_program_that_changes_its_user_says_why_it_is_not_served(kit: Kit) -> None:
    instance = on_nothing(kit, 1, security=GROUP)
    instance.start()
    installed = Installed(instance)
    change = f"import os; os.setresgid({STRANGER}, {STRANGER}, {STRANGER}); os.setgroups([]); os.setuid({STRANGER})\n"
    code = change + LISTEN.format(address=instance.address)
    done = instance.home.try_run(*installed.argv("run", "--", "/usr/bin/python3", "-c", code))
    assert done.returncode == 1
    assert "liblstack: this user may not attach" in done.stderr, done.stderr
    instance.stop()


def test_a_user_nobody_knows_is_an_error_with_its_line(kit: Kit) -> None:
    instance = on_nothing(kit, 1, security="allow_users = ['no-such-user-here']")
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == 78
    line = instance.config.read_text().splitlines().index("allow_users = ['no-such-user-here']") + 1
    assert f"error: {instance.config}:{line}: security.allow_users: " in done.stderr
    assert not Path(instance.run_dir).exists()
