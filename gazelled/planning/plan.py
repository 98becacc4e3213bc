# SPDX-License-Identifier: MulanPSL-2.0
"""The plan: everything that is decided before anything is done. Made by gazelled.queue_planner, kept as plan.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gazelled.base.json_text import json_text
from gazelled.base.typed import check_types
from gazelled.planning.findings import Finding

COMM_MAX = 15  # bytes of a process name the kernel keeps

Role = Literal["both", "recv", "send"]
PortKind = Literal["tap", "ethdev", "none"]


@dataclass(frozen=True)
class MempoolPlan:
    """The mempool of a worker: always on the worker's own node."""

    name: str
    mbufs: int
    numa: int | None
    bytes: int


@dataclass(frozen=True)
class RingsPlan:
    """The descriptor rings of a worker's queue: always on the worker's own node."""

    rx: int
    tx: int
    numa: int | None


@dataclass(frozen=True)
class PortBinding:
    """How one worker reaches its queue."""

    kind: PortKind
    device: str  # tap or netdev name, PCI address, memif socket; empty for none
    queue: int  # of the device: the queue_id, 0 where the worker owns the whole device
    eal_args: tuple[str, ...]  # ethdev: what the worker hands to DPDK


@dataclass(frozen=True)
class WorkerPlan:
    """One worker: one queue, one CPU, one mempool."""

    process_index: int
    index: int  # within its process
    queue_id: int
    role: Role
    name: str  # argv[0] and all our output
    comm: str  # what the kernel can show: at most 15 bytes, unique
    cpu: int | None  # None: its CPU list is too short (an error finding says so)
    numa: int | None  # None: the CPU is not in the topology
    mempool: MempoolPlan
    rings: RingsPlan
    port: PortBinding
    memory: int  # bytes, the mempool's included


@dataclass(frozen=True)
class GroupPlan:
    """One gazelle process: the workers applications of that group attach to."""

    process_index: int
    queue_ids: tuple[int, ...]
    app_cpus: tuple[int, ...]  # CPUs on the workers' nodes that no worker uses: `run` can bind applications to them


@dataclass(frozen=True)
class StackPlan:
    """What the configuration says about every worker's loop."""

    nic_read_number: int
    rpc_number: int
    read_connect_number: int
    idle: Literal["adaptive", "poll"]
    spin_us: int
    app_bind_numa: bool


@dataclass(frozen=True)
class DevicePlan:
    """The port all workers share."""

    driver: str
    name: str  # the tap or netdev; the first PCI function; empty for none
    embedded: bool  # a tap that start creates and stop removes
    kind: str  # of an existing netdev: "veth", "ether"...; empty if unknown
    mtu: int
    uplink: str | None = None  # the interface beside whose kernel the stack serves; the tap then has no address
    past_firewall: bool = False  # whatever netfilter rules the host has


@dataclass(frozen=True)
class NetworkPlan:
    """Addresses."""

    host_addr: str  # the stack's, without prefix
    prefix: int
    gateway: str | None
    host_peer: str | None  # tap: the host's side
    mac: str | None  # the stack's; None: the device's own
    host_addr6: str | None = None  # the stack's in IPv6, without prefix, which is /64; None: it has no IPv6
    gateway6: str | None = None
    host_peer6: str | None = None  # tap: the host's side


@dataclass(frozen=True)
class HugepagesPlan:
    """Hugepages the workers of one node would use."""

    numa: int
    size_kb: int
    pages: int
    free: int
    required: bool  # False: without them the workers take ordinary pages


@dataclass(frozen=True)
class NicBinding:
    """One step of giving a NIC to DPDK."""

    pci: str
    driver: str


@dataclass(frozen=True)
class HostPlan:
    """What start needs of the host besides processes."""

    hugepages: tuple[HugepagesPlan, ...]
    bind: tuple[NicBinding, ...]


@dataclass(frozen=True)
class SecurityPlan:
    """Who may attach besides root, by name or number: `everybody`, or those users and the members of those groups."""

    everybody: bool
    users: tuple[str | int, ...]
    groups: tuple[str | int, ...]
    foreign_namespaces: Literal["connect", "listen"]


@dataclass(frozen=True)
class Plan:
    """The whole instance. Workers are in queue_id order; `reta` maps hash & 127 to a queue_id (split: 2 * pair)."""

    instance: str
    num_process: int
    num_cpu: int  # per process, as in the seed
    num_queue: int  # per process
    tot_queue_num: int
    separate_send_recv: bool
    stack: StackPlan
    device: DevicePlan
    network: NetworkPlan
    security: SecurityPlan
    groups: tuple[GroupPlan, ...]
    workers: tuple[WorkerPlan, ...]
    rss_key: str  # 40 bytes in hex
    reta: tuple[int, ...]
    host: HostPlan
    findings: tuple[Finding, ...]
    metrics: str | None = None  # where they are served

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Return the findings that keep this plan from being started."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the plan as `plan --json` prints it and plan.json keeps it."""
        return json_text(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read back what `to_json` wrote; ValueError, KeyError or TypeError if it is something else."""
        data = json.loads(text)
        plan = cls(
            **{
                **data,
                "stack": StackPlan(**data["stack"]),
                "device": DevicePlan(**data["device"]),
                "network": NetworkPlan(**data["network"]),
                "security": SecurityPlan(
                    **{
                        **data["security"],
                        "users": tuple(data["security"]["users"]),
                        "groups": tuple(data["security"]["groups"]),
                    }
                ),
                "groups": tuple(
                    GroupPlan(group["process_index"], tuple(group["queue_ids"]), tuple(group["app_cpus"]))
                    for group in data["groups"]
                ),
                "workers": tuple(_worker(worker) for worker in data["workers"]),
                "reta": tuple(data["reta"]),
                "host": HostPlan(
                    tuple(HugepagesPlan(**pages) for pages in data["host"]["hugepages"]),
                    tuple(NicBinding(**step) for step in data["host"]["bind"]),
                ),
                "findings": tuple(Finding(**finding) for finding in data["findings"]),
            }
        )
        check_types(plan)
        return plan

    def difference(self, other: Plan) -> list[str]:
        """Say what `other` does differently, as "workers[1].cpu: 1 -> 3"; empty if starting either gives the same.

        Findings and free hugepages are left out: they change with the host, not with the plan.
        """
        return _difference("", _comparable(self), _comparable(other))


def _worker(data: dict[str, Any]) -> WorkerPlan:
    port = data["port"]
    return WorkerPlan(
        **{
            **data,
            "mempool": MempoolPlan(**data["mempool"]),
            "rings": RingsPlan(**data["rings"]),
            "port": PortBinding(port["kind"], port["device"], port["queue"], tuple(port["eal_args"])),
        }
    )


def _comparable(plan: Plan) -> object:
    data = plan.to_dict()
    del data["findings"]
    for pages in data["host"]["hugepages"]:
        del pages["free"]
    return json.loads(json.dumps(data))


def _difference(path: str, old: object, new: object) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in old for line in _difference(f"{path}.{key}" if path else key, old[key], new.get(key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, each in enumerate(old) for line in _difference(f"{path}[{i}]", each, new[i])]
    if isinstance(old, list) and isinstance(new, list):
        return [f"{path}: {len(old)} entries -> {len(new)}"]
    return [] if old == new else [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]
