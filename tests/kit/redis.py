# SPDX-License-Identifier: MulanPSL-2.0
"""redis-server and its own load generator, unmodified."""

from __future__ import annotations

import csv
import io

from kit.instance import Instance, accelerated
from kit.lab import Process
from kit.waiting import until

PORT = 6379


def start_redis(instance: Instance, bind: str | None = None, attached: bool = False) -> Process:
    """Start redis-server on the stack and return it once it answers, an `attached` client if nobody else reaches it."""
    redis = instance.spawn(
        "redis-server", "--bind", bind or instance.address, "--port", str(PORT), "--save", "", "--appendonly", "no",
        "--protected-mode", "no", "--dir", str(instance.kit.directory), "--daemonize", "no",
    )  # fmt: skip

    def answers() -> bool:
        assert redis.alive, f"redis-server ended:\n{redis.output()}"
        return ask(instance, "PING", attached=attached) == "PONG"

    until(answers, "redis to answer", 15)
    return redis


def ask(instance: Instance, *words: str, attached: bool = False) -> str:
    """Send one command from the client's side; return the answer, or what went wrong."""
    command = ["timeout", "2", "redis-cli", "-h", instance.address, "-p", str(PORT), *words]
    done = instance.client.try_run(*(instance.attached(*command) if attached else command))
    return (done.stdout + done.stderr).strip()


def load(instance: Instance, requests: int, *options: str, clients: int = 50) -> dict[str, float]:
    """Drive redis by redis-benchmark; return requests/s by test. AssertionError if a single thing went wrong."""
    done = instance.client.try_run(
        "redis-benchmark", "-h", instance.address, "-p", str(PORT), "-t", "get,set", "-c", str(clients),
        "-n", str(requests), "--csv", *options, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + instance.logs()
    assert "rror" not in done.stdout + done.stderr, done.stdout + done.stderr
    rates = {row["test"]: float(row["rps"]) for row in csv.DictReader(io.StringIO(done.stdout))}
    assert set(rates) == {"GET", "SET"}, done.stdout
    return rates


def serve_fifty_clients(instance: Instance, requests: int, workers: int) -> None:
    """Have redis serve fifty clients on the stack without an error, by all its workers; stop both."""
    redis = start_redis(instance)
    load(instance, requests)
    assert redis.alive
    accelerated(instance)
    accepted = [instance.page(queue_id).counters()["accepted"] for queue_id in range(workers)]
    assert all(accepted), f"connections accepted by each worker: {accepted}"
    redis.stop()
    instance.stop()
