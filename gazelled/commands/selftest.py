# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled selftest`: an echo through an instance of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from gazelled.base.errors import GazelledError
from gazelled.base.printable import printable_lines
from gazelled.commands.options import json_option
from gazelled.config import BUILT_IN, Config, NetworkConfig, PortConfig, SecurityConfig, StackConfig
from gazelled.instance.run_dir import RunDir

_SUBNETS = ip_network("198.18.0.0/15")  # set aside for measurements (RFC 2544): nobody is there
_END_S = 10.0


def _say(sentence: str) -> None:
    print(printable_lines(sentence), file=sys.stderr)


@click.command()
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="How long to echo.")
@json_option
def selftest(seconds: float, as_json: bool) -> int:
    """Send an echo through an instance of its own, and say which path it took and how fast it was.

    Starts an instance with one worker on a tap of its own, runs an echo server on it, talks to that from the kernel's
    side, and removes everything again. Other instances go on meanwhile. Needs root.
    """
    from gazelled.base.exitcode import ExitCode
    from gazelled.doctor import echo_client
    from gazelled.host.topology_probe import read_topology
    from gazelled.lifecycle.chosen_plan import startable
    from gazelled.lifecycle.instance import start
    from gazelled.lifecycle.instance import stop as stop_instance
    from gazelled.observe.status import read_status
    from gazelled.queue_planner import plan

    topology = read_topology()
    run_dir = RunDir.of(f"selftest-{os.getpid()}")
    made = startable(plan(_config(run_dir.instance, topology.usable[-1].id), topology), lambda _: None)
    start(made, None, foreground=False, report=_say)
    try:
        with _server(run_dir, made.network.host_addr) as port:
            seen: list[dict[str, Any]] = []
            speed = echo_client.measure(
                made.network.host_addr, port, seconds, lambda: seen.append(read_status(run_dir).to_dict()["sockets"])
            )
            sockets = seen[0]
    except (OSError, ValueError) as error:
        raise GazelledError(f"the echo failed: {error}", hint="`gazelled check` says what is wrong here") from error
    finally:
        stop_instance(run_dir, _say)
    kernel = sum(sockets["kernel"].values())
    if as_json:
        click.echo(json.dumps({**vars(speed), "accelerated": sockets["accelerated"], "kernel": kernel}, indent=2))
    else:
        rate, megabytes = speed.round_trips / speed.seconds, speed.bytes_each_way / speed.transfer_seconds / 1e6
        path = "stack" if sockets["accelerated"] and not kernel else "kernel"
        click.echo(f"path: {path} (sockets of the program: {sockets['accelerated']} stack, {kernel} kernel)")
        click.echo(
            f"64 bytes there and back: {rate:,.0f} round trips/s, "
            f"median {speed.median_us:.0f} us, longest {speed.longest_us:,.0f} us"
        )
        click.echo(f"256 KiB there and back: {megabytes:,.0f} MB/s each way; every byte came back as it was sent")
    if kernel or not sockets["accelerated"]:
        raise GazelledError("the echo server's sockets were the kernel's", hint="gazelled check")
    return ExitCode.OK


def _config(instance: str, cpu: int) -> Config:
    """Return a configuration that is in nobody's way: one worker, a tap, and a subnet that no device has."""
    from gazelled.config import ProcessConfig
    from gazelled.host import netlink

    for subnet in _SUBNETS.subnets(new_prefix=24):
        if netlink.overlap(subnet, but="") is None:
            address = f"{subnet.network_address + 2}/24"
            return Config(
                StackConfig(instance=instance),
                (ProcessConfig(cpus=(cpu,)),),
                PortConfig(rx_queue_size=BUILT_IN.port.rx_queue_size, tx_queue_size=BUILT_IN.port.tx_queue_size),
                NetworkConfig(address),
                SecurityConfig(),
                source="selftest",
            )
    raise GazelledError(f"no subnet of {_SUBNETS} is free", hint="`ip route` shows who has them")


@contextmanager
def _server(run_dir: RunDir, address: str) -> Iterator[int]:
    """Run the echo server on the stack; yield its port."""
    from gazelled.doctor import echo
    from gazelled.lifecycle.attached import attached_environment

    interpreter = Path(sys.executable)
    environment = attached_environment(run_dir, 0, "fail", interpreter)
    command = [str(interpreter), "-I", str(Path(echo.__file__)), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            if not said.strip().isdigit():
                raise ValueError("the echo server did not start")
            yield int(said)
            server.wait(_END_S)
        finally:
            server.kill()
