# SPDX-License-Identifier: MulanPSL-2.0
"""Checks of single configuration values: each raises with what is wrong, what is allowed, and maybe a hint."""

from __future__ import annotations

import grp
import ipaddress
import json
import pwd
from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from gazelled.base.cpulist import CPU_MAX, parse_cpus
from gazelled.configuration.settings import ALLOWED_MAX, AUTO, EVERYBODY, OWN_NAME

_Address = TypeVar("_Address", ipaddress.IPv4Address, ipaddress.IPv6Address)


def kind_of(value: object) -> str:
    """Return the TOML type of a value, with its article."""
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "a list", dict: "a table"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a date or time")


def shown_as(value: object) -> str:
    """Return a value as the file has it, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def wrong(what: str, allowed: str, hint: str = "") -> PydanticCustomError:
    """Return an error in our own words; `allowed` and `hint` go to their places in the line a person reads."""
    return PydanticCustomError("gazelled", "{what}", {"what": what, "allowed": allowed, "hint": hint})


_CPUS_ALLOWED = 'a list of CPU numbers ([0, 1]) or a string ("2-5,8")'


def cpus_of(value: object) -> tuple[int, ...]:
    """Return a CPU list, given in either form."""
    if isinstance(value, str):
        try:
            cpus = parse_cpus(value)
        except ValueError as error:
            raise wrong(f"is no CPU list: {error}", _CPUS_ALLOWED) from error
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, bool) or not isinstance(each, int):
                hint = "numbers without quotes, or the whole list as one string" if isinstance(each, str) else ""
                raise wrong(f"has {shown_as(each)}, which is no CPU number", _CPUS_ALLOWED, hint)
            if not 0 <= each <= CPU_MAX:
                raise wrong(f"has {each}, which is no CPU number", f"0 to {CPU_MAX}")
        cpus = tuple(value)
    else:
        raise wrong(f"is {kind_of(value)}", _CPUS_ALLOWED)
    return cpus


def some_cpus(value: object) -> tuple[int, ...]:
    """Return a CPU list that is not empty."""
    cpus = cpus_of(value)
    if not cpus:
        raise wrong("is empty", _CPUS_ALLOWED, "leave out [[process]] altogether to have the CPUs chosen")
    return cpus


def power_of_two(value: object) -> object:
    """Check a ring size; its type and range are checked after this."""
    if isinstance(value, int) and not isinstance(value, bool) and 64 <= value <= 32768 and value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise wrong("is no power of two", "a power of two from 64 to 32768", f"{below} or {2 * below}")
    return value


def devices(value: object) -> tuple[str, ...]:
    """Return the devices, given as one string or as a list."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise wrong(f"is {kind_of(value)}", 'a string ("eth1"), or for driver "pci" a list of strings, one per worker')


def host_address(value: object) -> object:
    """Check the stack's address: an IPv4 host address with its prefix."""
    allowed = 'an IPv4 address with its prefix, as "172.29.0.2/24"'
    if not isinstance(value, str):
        raise wrong(f"is {kind_of(value)}", allowed)
    if value == AUTO:
        return value
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError as error:
        raise wrong("is no address", allowed) from error
    if isinstance(interface, ipaddress.IPv6Interface):
        raise wrong("is an IPv6 address", allowed, "IPv6 has a key of its own, host_addr6")
    if "/" not in value:
        raise wrong("has no prefix", allowed, f'did you mean "{value}/24"?')
    address, network = interface.ip, interface.network
    if not 8 <= network.prefixlen <= 32:
        raise wrong(f"has the prefix /{network.prefixlen}", "/8 to /32")
    if network.prefixlen < 31 and address in (network.network_address, network.broadcast_address):
        which = "network" if address == network.network_address else "broadcast"
        raise wrong(
            f"is the {which} address of {network}",
            allowed,
            f'did you mean "{_first_host(network)}/{network.prefixlen}"?',
        )
    for bad, name in (
        (address.is_multicast, "multicast"),
        (address.is_loopback, "loopback"),
        (address.is_unspecified, "unspecified"),
        (address.is_reserved, "reserved"),
    ):
        if bad:
            raise wrong(f"is a {name} address", allowed)
    return value


def _first_host(network: ipaddress.IPv4Network, without: ipaddress.IPv4Address | None = None) -> str:
    return str(next((host for host in network.hosts() if host != without), network.network_address))


def _plain_address(value: object, made: Callable[[str], _Address], version: str, example: str) -> _Address:
    """Return an address without a prefix; raise if it is none of that version."""
    allowed = f'an {version} address, as "{example}"'
    if not isinstance(value, str):
        raise wrong(f"is {kind_of(value)}", allowed)
    try:
        return made(value)
    except ValueError as error:
        raise wrong(f"is no {version} address", allowed, "without a prefix" if "/" in value else "") from error


def gateway_address(value: object, info: ValidationInfo) -> object:
    """Check the gateway against the stack's subnet (host_addr is validated before)."""
    gateway = _plain_address(value, ipaddress.IPv4Address, "IPv4", "172.29.0.1")
    own = info.data.get("host_addr")
    if own is None or own == AUTO:
        return value  # host_addr is wrong itself: one mistake, one error
    interface = ipaddress.IPv4Interface(own)
    network = interface.network
    if gateway not in network:
        raise wrong("is outside the stack's subnet", f"an address in {network} (network.host_addr)")
    if gateway == interface.ip:
        raise wrong("is the stack's own address", f"another address in {network}")
    if network.prefixlen < 31 and gateway in (network.network_address, network.broadcast_address):
        raise wrong(
            "is no host address",
            f"a host address in {network}",
            f'did you mean "{_first_host(network, interface.ip)}"?',
        )
    return value


def host_address6(value: object) -> object:
    """Check the stack's IPv6 address: a unicast address that others can reach, in a subnet of /64."""
    allowed = 'an IPv6 address with the prefix /64, as "fd00:29::2/64"'
    if not isinstance(value, str):
        raise wrong(f"is {kind_of(value)}", allowed)
    try:
        interface = ipaddress.IPv6Interface(value)
    except ValueError as error:
        raise wrong("is no IPv6 address", allowed) from error
    if "/" not in value:
        raise wrong("has no prefix", allowed, f'did you mean "{value}/64"?')
    address, network = interface.ip, interface.network
    if network.prefixlen != 64:
        raise wrong(f"has the prefix /{network.prefixlen}", "/64")
    if address.scope_id or address.is_link_local:
        raise wrong("is a link-local address", allowed, "the stack gives itself one of those")
    for bad, name in (
        (address.is_multicast, "multicast"),
        (address.is_loopback, "loopback"),
        (address.is_unspecified, "unspecified"),
        (address.ipv4_mapped is not None, "IPv4-mapped"),
        (address == network.network_address, "subnet-router"),
    ):
        if bad:
            raise wrong(f"is the {name} address of {network}" if name[0] == "s" else f"is a {name} address", allowed)
    return value


def gateway_address6(value: object, info: ValidationInfo) -> object:
    """Check the IPv6 gateway against the stack's subnet (host_addr6 is validated before)."""
    gateway = _plain_address(value, ipaddress.IPv6Address, "IPv6", "fd00:29::1")
    if "host_addr6" not in info.data:
        return value  # host_addr6 is wrong itself: one mistake, one error
    own = info.data["host_addr6"]
    if own is None:
        raise wrong("has no host_addr6 beside it", "only together with network.host_addr6")
    interface = ipaddress.IPv6Interface(own)
    if gateway not in interface.network:
        raise wrong("is outside the stack's subnet", f"an address in {interface.network} (network.host_addr6)")
    if gateway == interface.ip:
        raise wrong("is the stack's own address", f"another address in {interface.network}")
    if gateway == interface.network.network_address:
        raise wrong("is no host address", f"a host address in {interface.network}")
    return value


_UNIX_MAX = 107  # bytes of a socket's path


def listen_address(value: object) -> object:
    """Check where metrics are to be served."""
    allowed = 'an address and a port, as "127.0.0.1:9464" or "[::1]:9464", or "unix:/run/gazelled.metrics"'
    if not isinstance(value, str):
        raise wrong(f"is {kind_of(value)}", allowed)
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise wrong("is no absolute path of a socket", allowed)
        if len(path.encode()) > _UNIX_MAX:
            raise wrong("is too long for a socket", f"a path of at most {_UNIX_MAX} bytes")
        return value
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise wrong("has no port", allowed)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError as error:
        raise wrong("has no address", allowed, "a number, not a name") from error
    if (address.version == 6) != bracketed:
        raise wrong("has no address", allowed, "IPv6 in brackets")
    return value


_ID_MAX = (1 << 32) - 2


def allowed_users(value: object) -> tuple[str | int, ...]:
    """Check who may attach: users this machine knows, or everybody."""
    allowed = f'a list of users, as ["www-data", 1000]; ["{EVERYBODY}"] is everybody'
    if value == [EVERYBODY]:
        return (EVERYBODY,)
    return _known(value, "user", [user.pw_name for user in pwd.getpwall()], allowed)


def allowed_groups(value: object) -> tuple[str | int, ...]:
    """Check who may attach: groups this machine knows."""
    return _known(value, "group", [group.gr_name for group in grp.getgrall()], 'a list of groups, as ["gazelle", 1000]')


def _known(value: object, what: str, names: list[str], allowed: str) -> tuple[str | int, ...]:
    if not isinstance(value, list):
        raise wrong(f"is {kind_of(value)}", allowed)
    if len(value) > ALLOWED_MAX:
        raise wrong(f"has {len(value)} entries", f"at most {ALLOWED_MAX}", "a group may have any number of members")
    for each in value:
        if isinstance(each, bool) or not isinstance(each, str | int):
            raise wrong(f"has {shown_as(each)}, which is no {what}", allowed)
        if isinstance(each, int) and not 0 <= each <= _ID_MAX:
            raise wrong(f"has {each}, which is no number of a {what}", f"0 to {_ID_MAX}")
        if isinstance(each, str) and each not in (*names, OWN_NAME):  # that one is made before the first start
            if each == EVERYBODY:
                raise wrong(f'has "{EVERYBODY}" beside others', allowed, f'allow_users = ["{EVERYBODY}"] is everybody')
            close = get_close_matches(each, names, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"`add{what} --system {each}` makes it"
            raise wrong(f"has {shown_as(each)}, and there is no such {what} here", allowed, hint)
    return tuple(value)
