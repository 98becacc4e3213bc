# SPDX-License-Identifier: MulanPSL-2.0
"""A machine as the planner sees it: CPUs, NUMA nodes, memory, hugepages, NICs; read from and written to JSON.

gazelled.host.topology_probe reads the machine at hand; a file of the same form lets a person plan for another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from ipaddress import ip_interface
from pathlib import Path
from typing import TypeVar

from gazelled.base.errors import ConfigError
from gazelled.base.json_text import json_text

_T = TypeVar("_T")


@dataclass(frozen=True)
class Cpu:
    """One logical CPU."""

    id: int
    numa: int
    core: int  # -1: unknown
    socket: int  # -1: unknown
    online: bool
    allowed: bool = True  # in the cpuset of this process
    siblings: tuple[int, ...] = ()  # CPUs that share its core, itself included; empty: those of equal core and socket


@dataclass(frozen=True)
class Memory:
    """Memory of one node."""

    numa: int
    total_kb: int
    available_kb: int


@dataclass(frozen=True)
class Hugepages:
    """Hugepages of one size on one node."""

    numa: int
    size_kb: int
    total: int
    free: int


@dataclass(frozen=True)
class Nic:
    """A network device: a kernel interface, or a PCI function without one (then the name is empty)."""

    name: str
    pci: str  # empty: none
    numa: int  # -1: unknown or none
    driver: str
    queues: int  # 0: unknown
    mac: str
    addresses: tuple[str, ...]
    mtu: int = 0  # 0: unknown
    kind: str = ""  # ether, veth, tun, bridge...


@dataclass(frozen=True)
class Topology:
    """One machine."""

    cpus: tuple[Cpu, ...]
    hugepages: tuple[Hugepages, ...] = ()
    nics: tuple[Nic, ...] = ()
    memory: tuple[Memory, ...] = ()  # empty: unknown

    @cached_property
    def cpu(self) -> Mapping[int, Cpu]:
        """Return the CPUs by id."""
        return {cpu.id: cpu for cpu in self.cpus}

    @cached_property
    def usable(self) -> tuple[Cpu, ...]:
        """Return the CPUs workers and applications may run on, by id."""
        return tuple(sorted((cpu for cpu in self.cpus if cpu.online and cpu.allowed), key=lambda cpu: cpu.id))

    def nic(self, name: str) -> Nic | None:
        """Return the NIC of this interface name or PCI address."""
        return next((nic for nic in self.nics if name in (nic.name, nic.pci)), None) if name else None

    def core_of(self, cpu: Cpu) -> object:
        """Return what is equal for CPUs that share a core (hyper-threads) and differs for all others."""
        if cpu.siblings:
            return ("siblings", min(cpu.siblings))
        return ("cpu", cpu.id) if cpu.core < 0 else ("core", cpu.numa, cpu.socket, cpu.core)

    def to_json(self) -> str:
        """Return the topology as `gazelled topology` prints it: an object a line."""
        return json_text(asdict(self))


class _Reader:
    """Reads a topology's JSON and gathers everything that is wrong with it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []

    def problem(self, where: str, what: str) -> None:
        self.problems.append(f"{self.source}: {where}: {what}")

    def entries(
        self, data: Mapping[str, object], key: str, make: Callable[[str, dict[str, object]], _T | None], required: bool
    ) -> tuple[_T, ...]:
        entries = data.get(key, [])
        if not isinstance(entries, list):
            self.problem(key, "must be a list of objects")
            return ()
        if required and not entries:
            self.problem(key, "must have at least one entry" if key in data else "missing")
        made = []
        for i, entry in enumerate(entries):
            where = f"{key}[{i}]"
            if not isinstance(entry, dict):
                self.problem(where, f"{json.dumps(entry)} must be an object")
            elif (one := make(where, entry)) is not None:
                made.append(one)
        return tuple(made)

    def maker(self, kind: type[_T], optional: Mapping[str, object]) -> Callable[[str, dict[str, object]], _T | None]:
        """Return what makes one `kind` of an object; `optional` has the values of keys that may be left out."""
        types = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type]

        def make(where: str, entry: dict[str, object]) -> _T | None:
            before = len(self.problems)
            for key in entry.keys() - types.keys():
                self.problem(f"{where}.{key}", "unknown key" + did_you_mean(key, types))
            values = {}
            for key, expected in types.items():
                if key not in entry:
                    if key in optional:
                        values[key] = optional[key]
                    else:
                        self.problem(f"{where}.{key}", "missing")
                elif (value := _typed(entry[key], expected)) is None:
                    self.problem(f"{where}.{key}", f"{json.dumps(entry[key])} must be {_WANTED[expected]}")
                else:
                    values[key] = value
            return kind(**values) if len(self.problems) == before else None

        return make


_WANTED = {
    "int": "an integer",
    "str": "a string",
    "bool": "true or false",
    "tuple[int, ...]": "a list of integers",
    "tuple[str, ...]": "a list of strings",
}


def _typed(value: object, expected: str) -> object:
    """Return a JSON value as the type a field has, None if it is of another."""
    if expected == "int":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if expected == "str":
        return value if isinstance(value, str) else None
    if expected == "bool":
        return value if isinstance(value, bool) else None
    if not isinstance(value, list):
        return None
    wanted = int if expected == "tuple[int, ...]" else str
    return tuple(value) if all(isinstance(each, wanted) and not isinstance(each, bool) for each in value) else None


def did_you_mean(key: str, allowed: Mapping[str, object]) -> str:
    """Return ' (did you mean "x"?)' if some allowed key is close to this one, else what is allowed."""
    meant = get_close_matches(key, allowed, 1)
    return f' (did you mean "{meant[0]}"?)' if meant else f" (allowed: {', '.join(allowed)})"


_KEYS = ("cpus", "hugepages", "nics", "memory")
_HINT = "`gazelled topology` prints a file of the right form"


def parse_topology(text: str, source: str) -> Topology:
    """Read a topology's JSON, strictly; ConfigError with everything that is wrong with it."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{source}:{error.lineno}: not JSON: {error.msg}"], hint=_HINT) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{source}: must be an object with {', '.join(_KEYS)}"], hint=_HINT)
    reader = _Reader(source)
    for key in data.keys() - set(_KEYS):
        reader.problem(key, "unknown key" + did_you_mean(key, dict.fromkeys(_KEYS)))
    unknown = {"core": -1, "socket": -1, "online": True, "allowed": True, "siblings": ()}
    bare = {"pci": "", "numa": -1, "driver": "", "queues": 0, "mac": "", "addresses": (), "mtu": 0, "kind": ""}
    topology = Topology(
        cpus=reader.entries(data, "cpus", reader.maker(Cpu, unknown), required=True),
        hugepages=reader.entries(data, "hugepages", reader.maker(Hugepages, {}), required=False),
        nics=reader.entries(_without_nulls(data), "nics", reader.maker(Nic, bare), required=False),
        memory=reader.entries(data, "memory", reader.maker(Memory, {}), required=False),
    )
    seen: set[int] = set()
    for i, cpu in enumerate(topology.cpus):
        if cpu.id < 0 or cpu.id in seen:
            reader.problem(f"cpus[{i}].id", f"{cpu.id} is {'negative' if cpu.id < 0 else 'there twice'}")
        seen.add(cpu.id)
    for i, pages in enumerate(topology.hugepages):
        if pages.size_kb <= 0:
            reader.problem(f"hugepages[{i}].size_kb", f"{pages.size_kb} is no size")
    for i, nic in enumerate(topology.nics):
        for address in nic.addresses:
            if not _is_address(address):
                reader.problem(f"nics[{i}].addresses", f"{json.dumps(address)} is no address")
    if reader.problems:
        raise ConfigError(reader.problems, hint=_HINT)
    return topology


def _is_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return True


def _without_nulls(data: dict[str, object]) -> dict[str, object]:
    """Leave out a NIC's null values: a device that has no PCI address or driver may say so that way too."""
    nics = data.get("nics", [])
    if not isinstance(nics, list):
        return data
    trimmed = [{k: v for k, v in nic.items() if v is not None} if isinstance(nic, dict) else nic for nic in nics]
    return {**data, "nics": trimmed}


def load_topology(path: Path) -> Topology:
    """Read a file that `gazelled topology` wrote, or a person; "-" is standard input."""
    try:
        text = path.read_text() if str(path) != "-" else Path("/dev/stdin").read_text()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"], hint=_HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text"], hint=_HINT) from error
    return parse_topology(text, str(path))
