# SPDX-License-Identifier: MulanPSL-2.0
"""What the kernel's network keeps on an interface and loses when its driver goes: captured before, put back after.

Name, MAC, MTU, master, up-state, addresses and routes. Read and written with `ip`, whose JSON is kept as it is in the
journal. Putting back only adds what is missing: what was configured meanwhile stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

from gazelled.base import command
from gazelled.base.errors import GazelledError
from gazelled.host.sysfs import Host, Interface, read_interface

Entry = dict[str, Any]  # one object of ip's JSON

_FOREVER = 4294967295
_ADDRESS_FLAGS = ("noprefixroute", "nodad", "home", "mngtmpaddr", "autojoin")
_ROUTE_WORDS = {
    "gateway": "via",
    "table": "table",
    "protocol": "proto",
    "scope": "scope",
    "prefsrc": "src",
    "metric": "metric",
    "tos": "tos",
    "pref": "pref",
}
# Keys of a route that need no word of their own: said elsewhere in the command, or state that the kernel adds.
_ROUTE_SILENT = {"family", "type", "dst", "dev", "via", "metrics", "flags", "cache", "used", "users", "age", "lastused"}


@dataclass(frozen=True)
class Network:
    """Addresses and routes of this network namespace."""

    addresses: dict[str, list[Entry]]  # by interface
    routes: list[Entry]  # each with its "family": "-4" or "-6"

    def routes_of(self, name: str) -> list[Entry]:
        """Return the routes through an interface, those with several next hops included."""
        return [route for route in self.routes if name in devices_of(route)]


@dataclass(frozen=True)
class InterfaceState:
    """What has to be put back on an interface."""

    name: str
    dev_port: int
    mac: str
    mtu: int
    up: bool
    master: str
    addresses: list[Entry]
    routes: list[Entry]

    def to_json(self) -> dict[str, object]:
        """Return this as the journal keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild it from the journal."""
        return cls(**data)


def _ip_json(*arguments: str) -> list[Entry]:
    text = command.run(["ip", "-j", *arguments], hint="install iproute2").stdout.strip()
    try:
        return cast(list[Entry], json.loads(text)) if text else []
    except ValueError as error:
        raise GazelledError(f"`ip -j {' '.join(arguments)}` did not answer with JSON: {error}") from error


def read_addresses() -> dict[str, list[Entry]]:
    """Read the addresses of every interface of this network namespace."""
    return {
        str(link["ifname"]): list(link.get("addr_info", [])) for link in _ip_json("addr", "show") if "ifname" in link
    }


def read_routes() -> list[Entry]:
    """Read the routes of all tables of this network namespace."""
    return [
        {"family": family, **route}
        for family in ("-4", "-6")
        for route in _ip_json(family, "route", "show", "table", "all")
    ]


def read_network() -> Network:
    """Read the addresses and routes of this network namespace."""
    return Network(read_addresses(), read_routes())


def devices_of(route: Entry) -> set[str]:
    """Return the interfaces a route goes out by."""
    hops = [route, *route.get("nexthops", [])]
    return {str(hop["dev"]) for hop in hops if "dev" in hop}


def returns_by_itself(route: Entry) -> bool:
    """Say whether the kernel or a router's advertisement makes this route again without us."""
    return route.get("protocol") in ("kernel", "ra") or "expires" in route


def cannot_restore(route: Entry) -> str | None:
    """Return what of a route gazelled does not know how to put back, None if it can put back all of it."""
    if returns_by_itself(route):
        return None
    if "nexthops" in route:
        return "several next hops"
    return next((key for key in sorted(route) if key not in _ROUTE_WORDS and key not in _ROUTE_SILENT), None)


def capture(interface: Interface, network: Network) -> InterfaceState:
    """Return what has to be put back on an interface as it is now."""
    addresses = [entry for entry in network.addresses.get(interface.name, []) if not entry.get("temporary")]
    routes = [
        route
        for route in network.routes_of(interface.name)
        if not returns_by_itself(route) and cannot_restore(route) is None
    ]
    return InterfaceState(
        interface.name,
        interface.dev_port,
        interface.mac,
        interface.mtu,
        interface.up,
        interface.master,
        addresses,
        routes,
    )


def link_commands(wanted: InterfaceState, now: Interface) -> list[list[str]]:
    """Return the commands that give an interface its name, MAC, MTU, master and up-state; none if it has them. Pure."""
    commands: list[list[str]] = []
    up = now.up
    if up and (now.name != wanted.name or now.mac != wanted.mac):
        commands.append(["ip", "link", "set", "dev", now.name, "down"])
        up = False
    if now.name != wanted.name:
        commands.append(["ip", "link", "set", "dev", now.name, "name", wanted.name])
    change = ["ip", "link", "set", "dev", wanted.name]
    if now.mac != wanted.mac:
        commands.append([*change, "address", wanted.mac])
    if now.mtu != wanted.mtu:
        commands.append([*change, "mtu", str(wanted.mtu)])
    if wanted.master and now.master != wanted.master:
        commands.append([*change, "master", wanted.master])
    if up != wanted.up:
        commands.append([*change, "up" if wanted.up else "down"])
    return commands


def _address_key(entry: Entry) -> tuple[object, ...]:
    return entry["family"], entry["local"], entry["prefixlen"], entry.get("address")


def address_commands(wanted: InterfaceState, now: Sequence[Entry]) -> list[list[str]]:
    """Return the commands that add the addresses an interface lacks, in the order they had. Pure."""
    present = {_address_key(entry) for entry in now}
    return [
        ["ip", "addr", "add", *_address_words(entry), "dev", wanted.name]
        for entry in wanted.addresses
        if _address_key(entry) not in present
    ]


def _address_words(entry: Entry) -> list[str]:
    words = [f"{entry['local']}/{entry['prefixlen']}"]
    if "address" in entry:
        words = [str(entry["local"]), "peer", f"{entry['address']}/{entry['prefixlen']}"]
    if entry["family"] == "inet":
        for key in ("broadcast", "scope", "label"):
            if key in entry:
                words += [key, str(entry[key])]
    if "metric" in entry:
        words += ["metric", str(entry["metric"])]
    valid, preferred = (entry.get(f"{which}_life_time", _FOREVER) for which in ("valid", "preferred"))
    if (valid, preferred) != (_FOREVER, _FOREVER):
        words += [
            "valid_lft",
            "forever" if valid == _FOREVER else str(valid),
            "preferred_lft",
            "forever" if preferred == _FOREVER else str(preferred),
        ]
    return words + [flag for flag in _ADDRESS_FLAGS if entry.get(flag)]


def route_commands(wanted: InterfaceState, now: Sequence[Entry]) -> list[list[str]]:
    """Return the commands that add the routes an interface lacks, those that reach a gateway last. Pure.

    `append`, not `replace`: a route to the same place that was added meanwhile stays.
    """
    present = [_route_words(route) for route in now]
    missing = [route for route in wanted.routes if _route_words(route) not in present]
    missing.sort(key=lambda route: "gateway" in route or "via" in route)
    return [["ip", str(route["family"]), "route", "append", *_route_words(route)] for route in missing]


def _route_words(route: Entry) -> list[str]:
    kind = route.get("type", "unicast")
    words = [*([] if kind == "unicast" else [str(kind)]), str(route["dst"])]
    if "via" in route:
        words += ["via", str(route["via"]["family"]), str(route["via"]["host"])]
    if "dev" in route:
        words += ["dev", str(route["dev"])]
    for key, word in _ROUTE_WORDS.items():
        if key in route:
            words += [word, str(route[key])]
    for metric in route.get("metrics", []):
        for key, value in metric.items():
            words += [str(key), str(value)]
    return words + (["onlink"] if "onlink" in route.get("flags", []) else [])


def restore(host: Host, wanted: InterfaceState, name: str) -> None:
    """Make the interface now called `name` what it was. Idempotent; what fails keeps nothing else from coming back.

    Raises GazelledError with all that failed.
    """
    # Up brings link-local addresses, addresses bring routes: look again before each kind.
    steps: tuple[Callable[[], list[list[str]]], ...] = (
        lambda: link_commands(wanted, read_interface(host, name)),
        lambda: address_commands(wanted, read_addresses().get(wanted.name, [])),
        lambda: route_commands(wanted, read_routes()),
    )
    failed = []
    for missing in steps:
        complaints = _run_all(missing())
        if complaints:
            # The kernel may have been faster than a command: it adds a link-local address some time after up.
            still = missing()
            failed += [said for argv, said in complaints if argv in still]
    if failed:
        raise GazelledError("; ".join(failed))


def _run_all(commands: list[list[str]]) -> list[tuple[list[str], str]]:
    """Run each command, whatever became of those before; return those that failed, with what they said."""
    failed = []
    for argv in commands:
        try:
            command.run(argv)
        except GazelledError as error:
            failed.append((argv, str(error)))
    return failed
