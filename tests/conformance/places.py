# SPDX-License-Identifier: MulanPSL-2.0
"""Where cases run.

    kernel, over the wire      namespace k [10.91.0.2]--veth--[10.91.0.1] namespace m
    kernel, same host          both in namespace k
    stack, over the wire       namespace s: the stack [10.91.0.2] --tap-- [10.91.0.1] kernel
    stack, same host           both attached in namespace s
    stack, with an uplink      the stack beside the kernel of s [10.91.0.2] --veth-- [10.91.0.1] namespace c

The addresses are the same on both sides, so the traces are comparable as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from kit.instance import Instance, on_tap, on_uplink
from kit.lab import Kit
from kit.namespaces import Namespace

from conformance.registry import HOST, HOST6, STACK, STACK6, Mode
from conformance.runner import Rig, Wrap


class Places:
    """The namespaces, the instance and the rigs; everything is made when it is first needed."""

    def __init__(self, kit: Kit, workers: int = 1, uplink: bool = False) -> None:
        self._kit, self._workers, self._uplink = kit, workers, uplink
        self._rigs: dict[str, Rig] = {}
        self._kernel: tuple[Namespace, Namespace] | None = None
        self._instance: Instance | None = None
        self._pool = ThreadPoolExecutor(2)
        kit.later(self._pool.shutdown)

    def kernel(self, mode: Mode, name: str = "kernel") -> Rig:
        """Return the rig where a mode's cases run on the kernel; another name is another one of the same kind."""
        near, far = self._kernel_namespaces()
        if mode.wire:
            return self._rig(f"{name}-wire", lambda argv: near.argv(*argv), lambda argv: far.argv(*argv))
        return self._rig(f"{name}-local", lambda argv: near.argv(*argv), lambda argv: near.argv(*argv))

    def stack(self, mode: Mode) -> Rig:
        """Return the rig where a mode's cases run with the subject on the stack."""
        instance = self.instance()

        def attached(argv: list[str]) -> list[str]:
            return instance.home.argv(*instance.attached(*argv))

        def plain(argv: list[str]) -> list[str]:
            return instance.client.argv(*argv)

        if mode.peer_on_stack:
            return self._rig("stack-both", attached, attached)
        if not mode.wire:  # another program of the same machine
            return self._rig("stack-local", attached, lambda argv: instance.home.argv(*argv))
        return self._rig("stack-one", attached, plain)

    def run(self, case: str, mode: Mode) -> tuple[list[str], list[str]]:
        """Run a case on the kernel and on the stack, at the same time; return both traces."""
        rigs = self.kernel(mode), self.stack(mode)
        kernel, stack = self._pool.map(lambda rig: rig.run(case, mode.name), rigs)
        return kernel, stack

    def instance(self) -> Instance:
        """Return the instance, started."""
        if self._instance is None:
            if self._uplink:
                self._instance = on_uplink(self._kit, self._workers, ipv6=True, net=91)
            else:
                self._instance = on_tap(self._kit, self._workers, ipv6=True)
            self._instance.start()
        return self._instance

    @property
    def started(self) -> Instance | None:
        """Return the instance if there is one."""
        return self._instance

    def _rig(self, name: str, subject: Wrap, peer: Wrap) -> Rig:
        if name not in self._rigs:
            self._rigs[name] = rig = Rig(name, subject, peer, self._kit.directory / f"{name}.log")
            self._kit.later(rig.stop)
        return self._rigs[name]

    def _kernel_namespaces(self) -> tuple[Namespace, Namespace]:
        if self._kernel is None:
            near, far = self._kit.namespace("k"), self._kit.namespace("m")
            near.connect("gzk", far, "gzm")
            for namespace, device, address, address6 in ((near, "gzk", STACK, STACK6), (far, "gzm", HOST, HOST6)):
                namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
                namespace.run("ip", "address", "add", f"{address}/24", "dev", device)
                namespace.run("ip", "-6", "address", "add", f"{address6}/64", "dev", device, "nodad")
            self._kernel = near, far
        return self._kernel


@contextmanager
def placed(directory: Path) -> Iterator[Places]:
    """Make a place of its own; with it goes all it has made."""
    kit = Kit(directory)
    try:
        yield Places(kit)
    finally:
        kit.close()
