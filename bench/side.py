# SPDX-License-Identifier: MulanPSL-2.0
"""Sites, where servers are; sides, from where and through what clients reach them; placements, on which CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kit.lab import Process

from bench.instance import Instance, kernels_own, tap_device
from bench.lab import BenchError, Lab
from bench.targets import AF_XDP, BESIDE, SAME_HOST, TAP, UPLINK

SPREAD, ONE_CORE = "spread", "one core"
PLACEMENTS = (SPREAD, ONE_CORE)


class Site:
    """Where a server is: the kernel of a namespace, or an instance. Servers of all programs are started by it."""

    def __init__(
        self, lab: Lab, key: str, instance: Instance | None, namespace: str = "", address: str = "0.0.0.0"
    ) -> None:
        self.lab, self.key, self.instance = lab, key, instance
        self.namespace = lab.home if instance else namespace or lab.kernel  # servers run there
        self.address = instance.address if instance else address  # and listen on it

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what a program started here finds in its environment."""
        return {} if self.instance is None else self.instance.environment

    def spawn(self, argv: Sequence[str], cpu: int | None = None) -> Process:
        """Start a server here."""
        return self.lab.spawn(argv, self.namespace, self.environment, cpu)

    def stack_pids(self) -> list[int]:
        """Return the processes of the stack itself."""
        return [] if self.instance is None else self.instance.workers()

    def open(self) -> None:
        """Start what it needs; the tap's host side gets its second client address."""
        if self.instance is None:
            return
        self.instance.start()
        if self.key.startswith("tap"):
            self.lab.address(tap_device(self.instance), f"{self.instance.peers[1]}/24", self.lab.home)

    def renew(self) -> None:
        """Start the instance anew, after it failed."""
        if self.instance is None:
            raise BenchError("the kernel does not serve")
        self.instance.stop()
        self.open()


@dataclass(frozen=True)
class Side:
    """A way from client to server."""

    key: str
    site: Site
    namespace: str  # of the client
    address: str  # the client connects to
    attached: bool = False  # the client too is on the stack
    sources: tuple[str, ...] = ()  # addresses of the client, where it has several

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what the client finds in its environment."""
        return self.site.environment if self.attached else {}

    def call(self, argv: Sequence[str], cpu: int, seconds: float = 30.0, text: str | None = None) -> str:
        """Run a client to its end; BenchError if it fails."""
        return self.site.lab.call(argv, self.namespace, self.environment, cpu, seconds, text)

    def cpus(self, placement: str) -> tuple[int, int]:
        """Return the CPUs of server and client."""
        lab = self.site.lab
        return (lab.client_cpu, lab.client_cpu) if placement == ONE_CORE else (lab.server_cpu, lab.client_cpu)

    def pinning(self, placement: str) -> str:
        """Say who is where: beside every figure."""
        server, client = self.cpus(placement)
        where = f"server {server}, client {client}"
        return where if self.site.instance is None else f"{where}, worker {self.site.lab.worker_cpu}"


KERNEL_LO, KERNEL_VETH = "kernel loopback", "kernel veth"
BASELINE = {
    SAME_HOST: KERNEL_LO,
    TAP: KERNEL_VETH,
    UPLINK: KERNEL_VETH,
    BESIDE: KERNEL_VETH,
    AF_XDP: KERNEL_VETH,
}
OTHER = {path: f"{path}, other checkout" for path in BASELINE}


@dataclass
class Field:
    """All sites and sides of a run. A site that cannot be opened is kept with the reason: its rows say it."""

    lab: Lab
    sites: dict[str, Site] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add_site(self, site: Site) -> None:
        """Open a site."""
        self.sites[site.key] = site
        try:
            site.open()
        except BenchError as error:
            self.broken[site.key] = str(error)

    def side(self, key: str, site: str, namespace: str, address: str, attached: bool = False,
             sources: tuple[str, ...] = ()) -> None:  # fmt: skip
        """Add a side."""
        self.sides[key] = Side(key, self.sites[site], namespace, address, attached, sources)


def open_field(lab: Lab, paths: Sequence[str], instances: Mapping[str, Instance]) -> Field:
    """Open what the wanted paths need. The sides are in the order of the turns: kernel, (other), gazelled, kernel...

    `instances` are "tap", "uplink" and "af_xdp", and the same of another checkout as "tap other" and so on.
    """
    opened = Field(lab)
    opened.add_site(Site(lab, "kernel", None))
    for key, instance in instances.items():
        opened.add_site(Site(lab, key, instance))
    both = [(" other", OTHER), ("", dict(zip(BASELINE, BASELINE, strict=True)))]
    ours = [
        (suffix, names) for suffix, names in both if any(key.endswith(" other") == bool(suffix) for key in instances)
    ]
    if SAME_HOST in paths:
        opened.side(KERNEL_LO, "kernel", lab.kernel, "127.0.0.1")
        for suffix, names in ours:
            site = f"tap{suffix}"
            opened.side(names[SAME_HOST], site, lab.home, instances[site].address, attached=True)
    if {TAP, UPLINK, BESIDE, AF_XDP} & set(paths):
        opened.side(KERNEL_VETH, "kernel", lab.client, "10.93.0.2", sources=("10.93.0.1", "10.93.0.3"))
    for suffix, names in ours if TAP in paths else []:
        site = f"tap{suffix}"
        opened.side(names[TAP], site, lab.home, instances[site].address, sources=instances[site].peers)
    for path, kind in ((UPLINK, "uplink"), (AF_XDP, "af_xdp")):
        for suffix, names in ours if path in paths else []:
            site = f"{kind}{suffix}"
            opened.side(names[path], site, lab.client, instances[site].address)
    for suffix, names in ours if BESIDE in paths else []:
        own = kernels_own(instances[f"uplink{suffix}"].address)
        opened.add_site(Site(lab, f"beside{suffix}", None, lab.home, own))
        opened.side(names[BESIDE], f"beside{suffix}", lab.client, own)
    return opened
