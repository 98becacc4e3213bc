# SPDX-License-Identifier: MulanPSL-2.0
"""The configuration as the rest of gazelled sees it: plain values, whatever file or option they came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_INSTANCE = "default"
INSTANCE_NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,30}"  # becomes part of paths, device names and DPDK prefixes
DEFAULT_HOST_ADDR = "172.29.0.2/24"
OWN_NAME = "gazelle"  # the user whom workers become, and the group whose members may attach
EVERYBODY = "*"
ALLOWED_MAX = 32  # users, and groups, who may attach: GZ_ALLOWED_MAX of group_page.h


def is_instance_name(name: str) -> bool:
    """Tell whether a name may name an instance."""
    return re.fullmatch(INSTANCE_NAME, name) is not None


@dataclass(frozen=True)
class StackConfig:
    """[stack]: what holds for all workers of the instance."""

    instance: str = DEFAULT_INSTANCE
    tcp_conn_count: int = 1500
    # The ancestor's 170 pays for data the program has not read yet. Here that data waits in the connection's FIFO, and
    # an mbuf lives from the wire to the FIFO (rx) or until the port has sent it (tx), so a few per connection are
    # plenty: 1500 * 10 stays under 16k mbufs (about 40 MB) for one worker, and is half of that for each of two.
    mbuf_count_per_conn: int = 10
    nic_read_number: int = 128
    rpc_number: int = 4
    read_connect_number: int = 4
    idle: str = "adaptive"  # or "poll"
    spin_us: int = 100
    app_bind_numa: bool = True
    app_exclude_cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class ProcessConfig:
    """One [[process]] table: a stack group. Either `cpus`, or `recv_cpus` and `send_cpus` for the send/recv split."""

    cpus: tuple[int, ...] = ()
    recv_cpus: tuple[int, ...] = ()
    send_cpus: tuple[int, ...] = ()

    @property
    def split(self) -> bool:
        """Tell whether receiving and sending connections live on different workers."""
        return not self.cpus

    @property
    def num_cpu(self) -> int:
        """Return the ancestor's num_cpu: with the split, the number of send CPUs."""
        return len(self.send_cpus) if self.split else len(self.cpus)

    @property
    def num_queue(self) -> int:
        """Return how many workers, and so queues, the process has."""
        return 2 * self.num_cpu if self.split else self.num_cpu


AUTO = "auto"  # network.host_addr: the addresses of port.uplink


@dataclass(frozen=True)
class PortConfig:
    """[port]: where packets come from and go to."""

    driver: str = "tap"  # tap, af_xdp, pci, af_packet, memif, none
    device: tuple[str, ...] = ()  # empty: the embedded tap; several only for pci, one function per worker
    rx_queue_size: int = 4096
    tx_queue_size: int = 2048
    mtu: int | None = None  # None: 1500, or less if the device has less
    host_driver: str | None = None  # pci only: the driver a function is bound to for DPDK
    uplink: str | None = None  # tap only: the interface whose address and packets the stack shares with the kernel
    past_firewall: bool = (
        False  # with an uplink: although the host filters what comes in, which the stack's ports do not pass
    )


@dataclass(frozen=True)
class NetworkConfig:
    """[network]: the stack's own addresses."""

    host_addr: str = DEFAULT_HOST_ADDR
    gateway_addr: str | None = None
    host_addr6: str | None = None  # None: the stack has no IPv6
    gateway_addr6: str | None = None


@dataclass(frozen=True)
class SecurityConfig:
    """[security]: who may attach, besides root. Names or numbers; the user EVERYBODY stands for all."""

    allow_users: tuple[str | int, ...] = ()
    allow_groups: tuple[str | int, ...] = (OWN_NAME,)
    foreign_namespaces: str = "connect"  # or "listen"


@dataclass(frozen=True)
class MetricsConfig:
    """[metrics]: where the Prometheus metrics are served; None: nowhere."""

    listen: str | None = None  # "127.0.0.1:9464" or "unix:/run/gazelled.metrics"


@dataclass(frozen=True)
class Config:
    """One effective configuration. `source` names the file, "built-in" if there was none."""

    stack: StackConfig = field(default_factory=StackConfig)
    process: tuple[ProcessConfig, ...] = ()  # empty: queue_planner.complete() chooses for the machine
    port: PortConfig = field(default_factory=PortConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    source: str = "built-in"

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of the file with their effective values; what is absent and has no default is left out."""
        stack, port, network, security = self.stack, self.port, self.network, self.security
        device: object = port.device[0] if len(port.device) == 1 else list(port.device) or None
        return {
            "stack": {**vars(stack), "app_exclude_cpus": list(stack.app_exclude_cpus)},
            "process": [{key: list(cpus) for key, cpus in vars(process).items() if cpus} for process in self.process],
            "port": _present({**vars(port), "device": device}),
            "network": _present(vars(network)),
            "security": {key: list(each) if isinstance(each, tuple) else each for key, each in vars(security).items()},
            "metrics": _present(vars(self.metrics)),
        }


# Small rings and pools for the embedded tap: quick to create, and a tap's packets come in super-frames anyway. It is
# for trying things out: all users may attach, as all may use the kernel's stack.
BUILT_IN = Config(
    port=PortConfig(rx_queue_size=1024, tx_queue_size=1024),
    security=SecurityConfig(allow_users=(EVERYBODY,), allow_groups=()),
)


def _present(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}
