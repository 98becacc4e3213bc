# SPDX-License-Identifier: MulanPSL-2.0
"""`make run`: redis on the stack, end to end, by the commands a person would type.

Starts gazelled on the embedded default (a tap, no NIC, no hugepages), runs an unmodified redis-server on it, drives it
from the kernel's side of the tap, shows what happened and stops everything again. With --keep it leaves it running.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
GAZELLED = ".venv/bin/gazelled"
STATE = REPOSITORY / "build" / "demo.json"  # what --keep left running
LOG = REPOSITORY / "build" / "demo-redis.log"
PORT = "6379"
CLIENTS = "50"
REQUESTS = "200000"
ANSWERS_WITHIN_S = 15.0

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something did not work; what was started is stopped before this is told."""


@dataclass(frozen=True)
class Kept:
    """What --keep left running."""

    redis: int
    redis_started: float
    address: str


def say(text: str) -> None:
    """Tell what happens next."""
    console.print(f"[bold]==>[/bold] {text}")


def show(command: Sequence[str]) -> None:
    """Echo a command as one would type it."""
    console.print(f"    $ {shlex.join(command)}", style="dim", soft_wrap=True, markup=False)


def run(*command: str, timeout: float = 120, quiet: bool = False) -> str:
    """Run a command to its end and return what it printed."""
    if not quiet:
        show(command)
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if done.returncode:
        raise DemoError(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout}".rstrip())
    return done.stdout


def status() -> dict[str, Any]:
    """Return what `gazelled status` says; it exits 0 only if all is well."""
    text = subprocess.run([GAZELLED, "status", "--json"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True).stdout
    said: dict[str, Any] = json.loads(text)
    return said


def start() -> tuple[str, str]:
    """Start the instance; return the stack's address and the host's."""
    # The demonstration is of the embedded default, whatever this machine is configured for.
    config = REPOSITORY / "build" / "demo.toml"
    config.write_text("[port]\nrx_queue_size = 1024\ntx_queue_size = 1024\n[security]\nallow_users = ['*']\n")
    other = bool(os.environ.get("GAZELLED_CONFIG")) or Path("/etc/gazelle.toml").exists()
    options = ["-c", str(config.relative_to(REPOSITORY))] if other else []
    plan = json.loads(run(GAZELLED, "plan", "--json", *options, quiet=True))
    run(GAZELLED, "start", *options)
    return plan["network"]["host_addr"], plan["network"]["host_peer"]


def start_redis(address: str) -> subprocess.Popen[bytes]:
    """Start redis-server on the stack and return when it answers on the stack's address."""
    # The bind address is the stack's: every connection it serves must come through the stack.
    command = [GAZELLED, "run", "--", "redis-server", "--bind", address, "--port", PORT]
    command += ["--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
    show(command)
    with LOG.open("wb") as log:
        # A session of its own: Ctrl-C here is for us to pass on, after the table or in its place.
        redis = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    ping = ["timeout", "2", "redis-cli", "-h", address, "-p", PORT, "ping"]
    while subprocess.run(ping, capture_output=True, text=True).stdout.strip() != "PONG":
        if redis.poll() is not None or time.monotonic() > deadline:
            stop_redis(redis)
            raise DemoError(f"redis-server does not answer; it said:\n{LOG.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    return redis


def stop_redis(redis: subprocess.Popen[bytes]) -> None:
    """End redis as a service manager would."""
    if redis.poll() is None:
        redis.terminate()
        try:
            redis.wait(timeout=10)
        except subprocess.TimeoutExpired:
            redis.kill()
            redis.wait(timeout=10)


def drive(address: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Drive redis from the kernel's side; return requests/s by test, and the status in the middle of it."""
    run("redis-cli", "-h", address, "-p", PORT, "set", "gazelle", "runs")
    if (answer := run("redis-cli", "-h", address, "-p", PORT, "get", "gazelle").strip()) != "runs":
        raise DemoError(f'redis answered "{answer}" in place of "runs"')
    command = ["redis-benchmark", "-h", address, "-p", PORT, "-t", "get,set", "-c", CLIENTS, "-n", REQUESTS, "--csv"]
    show(command)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as benchmark:
        try:
            during = status()
            out, _ = benchmark.communicate(timeout=120)
        except BaseException:
            benchmark.kill()
            raise
    if benchmark.returncode or "rror" in out:
        raise DemoError(f"redis-benchmark: status {benchmark.returncode}\n{out}")
    return {row["test"]: float(row["rps"]) for row in csv.DictReader(io.StringIO(out))}, during


def tables(address: str, peer: str, rates: dict[str, float], during: dict[str, Any], after: dict[str, Any]) -> None:
    """Print what happened."""
    workers = Table("queue", "worker", "pid", "CPU", "state", "connections")
    for row in during["workers"]:
        columns = (row["queue_id"], row["name"], row["pid"], row["cpu"], row["state"], row["connections"])
        workers.add_row(*map(str, columns))
    speed = Table("redis-benchmark", "requests/s")
    for test, rate in rates.items():
        speed.add_row(test, f"{rate:,.0f}")
    paths = Table("path", "sockets")
    paths.add_row("stack", str(during["sockets"]["accelerated"]))
    kernel = {why: count for why, count in after["sockets"]["kernel"].items() if count}
    for why, count in (kernel or {"": 0}).items():
        paths.add_row(f"kernel ({why})" if why else "kernel", str(count))
    for title, table in (
        ("the workers, under load", workers),
        (f"{CLIENTS} clients of the kernel's at {peer}, redis on the stack at {address}", speed),
        ("which path every socket of the attached programs took", paths),
    ):
        say(title)
        console.print(table)
    if kernel:
        raise DemoError(f"sockets took the kernel's path: {kernel}")
    if after["state"] != "running":
        raise DemoError(f"the instance is {after['state']}: {after['workers']}")


def stop_kept() -> bool:
    """Stop what an earlier --keep left running; True if there was something."""
    try:
        kept = Kept(**json.loads(STATE.read_text()))
    except FileNotFoundError:
        return False
    say("stopping what `make run KEEP=1` left running")
    import psutil

    try:
        redis = psutil.Process(kept.redis)
        if redis.create_time() == kept.redis_started:
            redis.terminate()
            redis.wait(timeout=10)
    except psutil.NoSuchProcess:
        console.print("    redis-server had ended before")
    run(GAZELLED, "stop")
    STATE.unlink()
    return True


def keep(redis: subprocess.Popen[bytes], address: str) -> None:
    """Leave all of it running and say how to use it."""
    import psutil

    STATE.write_text(json.dumps({
        "redis": redis.pid, "redis_started": psutil.Process(redis.pid).create_time(), "address": address,
    }))  # fmt: skip
    say("left running")
    for command, what in (
        (f"redis-cli -h {address}", "talk to it"),
        (f"{GAZELLED} status", "workers, programs, paths"),
        (f"{GAZELLED} run -- COMMAND...", "another program on the stack"),
        ("make stop", "stop redis and the instance"),
    ):
        console.print(f"    {command:<36} {what}", markup=False)


def demo(keeping: bool) -> None:
    """Do all of it."""
    stop_kept()
    if status()["state"] != "stopped":
        raise DemoError(f"an instance of the name default runs already\nhint: {GAZELLED} stop")
    say("starting gazelled: the embedded default, a tap with one queue per worker")
    redis = None
    try:
        address, peer = start()
        say("an unmodified redis-server on the stack")
        redis = start_redis(address)
        say(f"driving it from the kernel's side of the tap ({peer})")
        rates, during = drive(address)
        tables(address, peer, rates, during, status())
        if keeping:
            keep(redis, address)
            return
    except BaseException:
        console.print("    not done; stopping what was started", style="red")
        shut_down(redis)
        raise
    say("stopping")
    shut_down(redis)
    total = ", ".join(f"{test} {rate:,.0f}/s" for test, rate in rates.items())
    say(f"done: {total}, by {len(during['workers'])} workers, no socket on the kernel's path, nothing left running")


def shut_down(redis: subprocess.Popen[bytes] | None) -> None:
    """Stop redis and the instance, whatever of them there is."""
    if redis is not None:
        stop_redis(redis)
    run(GAZELLED, "stop")


def interrupted(number: int, _frame: object) -> None:
    """Leave by the way that stops everything."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Be `make run` and `make stop`."""
    parser = argparse.ArgumentParser(description="redis on the stack, end to end")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    parser.add_argument("--stop", action="store_true", help="stop what --keep left running")
    options = parser.parse_args()
    if os.geteuid() != 0:
        console.print("error: not root: the tap and its queues need it\nhint: sudo make run")
        return 77
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        if options.stop:
            if not stop_kept():
                console.print("nothing was left running")
        else:
            demo(options.keep)
    except (DemoError, subprocess.TimeoutExpired) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 69
    except KeyboardInterrupt:
        console.print("interrupted; everything was stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
