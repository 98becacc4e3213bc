# SPDX-License-Identifier: MulanPSL-2.0
"""The commands `ip`, `dpdk-devbind.py`, `modprobe` and `udevadm` of a fake host, and how they misbehave on demand.

Each step of a command that changes something is announced to `step`. $FAKE_TROUBLE="ACTION:N" makes the Nth step since
the count in $FAKE_COUNT began

    fail        end the command with an error, what it did so far done
    kill        kill -9 the command's parent and end
    orphan      kill -9 the command's parent, wait for the file $FAKE_COUNT.go, then go on and say so by
                $FAKE_COUNT.gone: the parent's heir must wait for it
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from pathlib import Path

from fake_kernel import DPDK, FOREVER, Entry, FakeKernel, RefusedError

COMMANDS = ("ip", "dpdk-devbind.py", "modprobe", "udevadm")


def launch(directory: Path, command: str) -> None:
    """Make an executable of one command in a directory for PATH."""
    path = directory / command
    here = str(Path(__file__).parent)
    lines = (f"#!{sys.executable} -SE", "import sys", f"sys.path.insert(0, {here!r})", "import fake_commands")
    path.write_text("\n".join((*lines, f"fake_commands.main({command!r})")) + "\n")
    path.chmod(0o755)


def step() -> None:
    """Count one step and misbehave if it is the one asked for."""
    action, _, wanted = os.environ.get("FAKE_TROUBLE", "none:0").partition(":")
    with Path(os.environ["FAKE_COUNT"]).open("ab") as file:
        file.write(b".")
    if os.path.getsize(os.environ["FAKE_COUNT"]) != int(wanted):
        return
    if action in ("kill", "orphan"):
        os.kill(os.getppid(), signal.SIGKILL)
    if action == "orphan":
        atexit.register(Path(os.environ["FAKE_COUNT"] + ".gone").touch)
        deadline = time.monotonic() + 10
        while not os.path.exists(os.environ["FAKE_COUNT"] + ".go") and time.monotonic() < deadline:
            time.sleep(0.005)
    if action in ("kill", "fail"):
        raise RefusedError("made to fail")


def devbind(kernel: FakeKernel, words: list[str]) -> None:
    """Play dpdk-devbind.py --force (--bind=DRIVER | --unbind) PCI, with its habit of ending with 0 when it failed."""
    assert words[0] == "--force"
    pci, driver = words[2], words[1].removeprefix("--bind=") if words[1].startswith("--bind=") else ""
    if driver and not (kernel.drivers / driver).is_dir():
        raise RefusedError(f"Error: Driver '{driver}' is not loaded.")
    if os.environ.get("FAKE_LAZY_DEVBIND"):
        print(f"Warning: routing table indicates that interface {pci} is active. Not modifying", file=sys.stderr)
        return
    step()
    if kernel.driver(pci):
        kernel.unbind(pci)
        step()
    override = kernel.pci_devices / pci / "driver_override"
    if driver in DPDK:
        override.write_text(f"{driver}\n")
        step()
    if driver:
        try:
            kernel.bind(pci, driver)
        except RefusedError as error:
            print(f"Error: bind failed for {pci} - Cannot bind to driver {driver}: {error}", file=sys.stderr)
            return
        step()
        override.write_text("\0")
    step()


def modprobe(kernel: FakeKernel, words: list[str]) -> None:
    """Play modprobe [-r] MODULE."""
    step()
    if words[0] == "-r":
        kernel.unload(words[1])
    elif words[0] in os.environ.get("FAKE_MODULES", "").split(","):
        kernel.load(words[0])
    else:
        raise RefusedError(f"FATAL: Module {words[0]} not found in directory /lib/modules/6.1.0")
    step()


def ip(kernel: FakeKernel, words: list[str]) -> None:
    """Play the parts of ip that gazelled uses."""
    match words:
        case ["-j", "addr", "show"]:
            network = kernel.network()
            print(json.dumps([{"ifname": name, "addr_info": network[name]["addresses"]} for name in network]))
        case ["-j", ("-4" | "-6") as family, "route", "show", "table", "all"]:
            routes = [route for interface in kernel.network().values() for route in interface["routes"]]
            shown = [route for route in routes if route["family"] == family]
            print(json.dumps([{key: route[key] for key in route if key != "family"} for route in shown]))
        case ["link", "set", "dev", name, what, *value]:
            step()
            kernel.link_set(name, what, value[0] if value else "")
            step()
        case ["addr", "add", *rest]:
            step()
            kernel.add_address(*parse_address(rest))
            step()
        case [("-4" | "-6") as family, "route", "append", *rest]:
            step()
            kernel.add_route(*parse_route(family, rest))
            step()
        case _:
            raise RefusedError(f"the fake ip does not know `ip {' '.join(words)}`")


def parse_address(words: list[str]) -> tuple[str, Entry]:
    """Return the interface and the entry of `ip addr add` words."""
    local, _, length = words[0].partition("/")
    entry: Entry = {"family": "inet6" if ":" in local else "inet", "local": local, "prefixlen": int(length)}
    if ":" in local:
        entry["scope"] = "link" if local.startswith("fe80:") else "global"
    flags = {word for word in words[1:] if word in ("noprefixroute", "nodad")}
    rest = [word for word in words[1:] if word not in flags]
    values = dict(zip(rest[::2], rest[1::2], strict=True))
    name = values.pop("dev")
    for lifetime in ("valid", "preferred"):
        given = values.pop(f"{lifetime}_lft", "forever")
        entry[f"{lifetime}_life_time"] = FOREVER if given == "forever" else int(given)
    return name, {**entry, **values, **dict.fromkeys(flags, True)}


def parse_route(family: str, words: list[str]) -> tuple[str, Entry]:
    """Return the interface and the entry of `ip route append` words."""
    values = dict(zip(words[1::2], words[2::2], strict=True))
    keys = {"via": "gateway", "proto": "protocol", "src": "prefsrc"}
    entry: Entry = {"family": family, "dst": words[0], "flags": []}
    entry.update({keys.get(word, word): int(value) if word == "metric" else value for word, value in values.items()})
    return values["dev"], entry


def udevadm(kernel: FakeKernel, words: list[str]) -> None:
    """Play udevadm settle: the fake host's udev is always done."""
    assert words[0] == "settle"


def main(command: str) -> None:
    """Be one of the commands on the host below $GAZELLED_HOST_ROOT."""
    kernel = FakeKernel(Path(os.environ["GAZELLED_HOST_ROOT"]))
    kernel.settle()
    play = {"ip": ip, "dpdk-devbind.py": devbind, "modprobe": modprobe, "udevadm": udevadm}[command]
    try:
        play(kernel, sys.argv[1:])
    except RefusedError as error:
        sys.exit(str(error))
    finally:
        kernel.settle()
