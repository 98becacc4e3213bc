# SPDX-License-Identifier: MulanPSL-2.0
"""redis as it is run in earnest: many clients, saves in the background, a replica.

                         namespace S
redis-benchmark    redis-server <- replica - redis-server
  |        |         | liblstack    (same host)
  |     loopback ----+
kernel ---- tap ---- stack
"""

from __future__ import annotations

from kit.instance import Instance
from kit.lab import Process
from kit.waiting import until

from programs.paths import LOOPBACK, accepted_by_workers, asker, kernel_paths, listens, on_the_stack

PORT, REPLICA = 6379, 6380
CLIENTS = 5000


def start(instance: Instance, port: int, *options: str) -> Process:
    directory = instance.kit.directory / str(port)
    directory.mkdir()
    redis = instance.spawn(
        "redis-server", "--bind", instance.address, LOOPBACK, "--port", str(port), "--protected-mode", "no",
        "--dir", str(directory), "--maxclients", str(2 * CLIENTS), *options,
    )  # fmt: skip
    listens(instance, redis, instance.address, port)
    return redis


def ask(instance: Instance, port: int, *words: str, address: str = "") -> str:
    address = address or instance.address
    return asker(instance, address).run("timeout", "5", "redis-cli", "-h", address, "-p", str(port), *words).strip()


def info(instance: Instance, port: int) -> dict[str, str]:
    lines = (line for line in ask(instance, port, "INFO").splitlines() if ":" in line)
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def load(instance: Instance, prefix: list[str], address: str, *options: str) -> None:
    done = asker(instance, address, bool(prefix)).try_run(
        "prlimit", f"--nofile={2 * CLIENTS}:", *prefix,
        "redis-benchmark", "-h", address, "-p", str(PORT), "-t", "get,set,lpush", "-r", "5000", "--csv", *options,
        timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said + instance.logs()
    assert "rror" not in said, said


def test_saves_in_the_background_and_a_replica_under_load(instance: Instance) -> None:
    threads = ("--io-threads", "2", "--io-threads-do-reads", "yes")
    redis = start(instance, PORT, "--save", "", "--appendonly", "yes", *threads)
    replica = start(instance, REPLICA, "--save", "", "--replicaof", instance.address, str(PORT))
    until(lambda: info(instance, REPLICA)["master_link_status"] == "up", "the replica to follow", 20)
    for round_, save in enumerate(("BGSAVE", "BGREWRITEAOF"), 1):
        ask(instance, PORT, save)
        load(instance, [], instance.address, "-n", "10000", "-c", "50", "-d", str(500 * round_))
    until(
        lambda: (now := info(instance, PORT))["rdb_bgsave_in_progress"] == now["aof_rewrite_in_progress"] == "0",
        "the saves to end", 20,
    )  # fmt: skip
    now = info(instance, PORT)
    assert now["rdb_last_bgsave_status"] == now["aof_last_bgrewrite_status"] == now["aof_last_write_status"] == "ok"
    assert int(now["rdb_last_save_time"]) > 0
    size = ask(instance, PORT, "DBSIZE")
    until(lambda: ask(instance, REPLICA, "DBSIZE") == size, f"the replica to have {size} keys")
    for _ in range(3):
        key = ask(instance, PORT, "RANDOMKEY")  # which keys there are is chance, too
        assert ask(instance, REPLICA, "GET", key) == ask(instance, PORT, "GET", key) != ""
    on_the_stack(instance, redis, replica)
    assert replica.stop() == 0
    assert redis.stop() == 0


def test_five_thousand_clients(instance: Instance) -> None:
    redis = start(instance, PORT, "--save", "")
    before = accepted_by_workers(instance)
    load(instance, [], instance.address, "-n", "20000", "-c", str(CLIENTS))
    assert accepted_by_workers(instance) - before >= 3 * CLIENTS  # for each of the three commands
    assert redis.alive
    on_the_stack(instance, redis)


def test_clients_on_loopback_plain_and_attached(instance: Instance) -> None:
    redis = start(instance, PORT, "--save", "")
    before = accepted_by_workers(instance)
    load(instance, [], LOOPBACK, "-n", "10000", "-c", "50")  # the kernel's half of the listener
    load(instance, instance.attached(), LOOPBACK, "-n", "10000", "-c", "50")  # memory of the two programs
    load(instance, instance.attached(), instance.address, "-n", "10000", "-c", "50")
    assert accepted_by_workers(instance) == before, "loopback went through a worker"
    on_the_stack(instance, redis)
    blocked = ("redis-cli", "-h", LOOPBACK, "-p", str(PORT), "BLPOP", "none", "20")
    with_client = instance.kit.spawn(instance.home, *blocked)
    until(lambda: sum(kernel_paths(instance, redis).values()) == 1, "a plain client on loopback to be counted")
    with_client.kill()
    on_the_stack(instance, redis)
