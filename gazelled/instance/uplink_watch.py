# SPDX-License-Identifier: MulanPSL-2.0
"""Follows what an uplink shares with the kernel: the interface's addresses, and connections the kernel has meanwhile.

The supervisor calls `look` with each tick. What it finds is told in sentences and kept for `status`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from gazelled.base.errors import GazelledError
from gazelled.host import netlink, uplink
from gazelled.instance.run_dir import UPLINK_FILE, RunDir
from gazelled.pages import group_page

Report = Callable[[str], None]

LOOK_EVERY = 5.0  # seconds between two looks at the programs; whether workers live is looked at with each tick


@dataclass
class UplinkWatch:
    """One uplink of one instance, whose group pages are those of `processes`."""

    interface: str
    processes: tuple[int, ...]
    run_dir: RunDir
    report: Report
    _index: int = 0  # of the interface
    _gone: bool = False
    _taken: tuple[str, ...] | None = None  # the addresses that are the stack's; None: not looked at yet
    _kernel_since: float | None = None  # no worker has lived since
    _next: float = 0.0
    _wrong: str = ""
    _written: str = field(default="", repr=False)
    events: socket.socket = field(init=False, repr=False)  # readable: `hear`

    def __post_init__(self) -> None:
        """Hear of every change from now on."""
        self._index = uplink.index_of(self.interface)
        self.events = netlink.address_events()

    def look(self, living: int, now: float) -> None:
        """Tell when the kernel begins and ends to serve; every few seconds look at the rest. Never raises."""
        if not living and self._kernel_since is None:
            self._kernel_since = now
            self.report(f"{self.interface}: no worker lives, the kernel serves new connections")
        elif living and self._kernel_since is not None:
            self.report(
                f"{self.interface}: the stack serves again, after {now - self._kernel_since:.1f} s of the kernel"
            )
            self._kernel_since = None
        if now < self._next:
            return
        self._next = now + LOOK_EVERY
        try:
            if not self._find_interface():
                return
            self._follow_addresses()
            state = uplink.read_state(self.interface)
            if state.kernel_flows and living:
                self._settle()
            self._write(json.dumps({"interface": self.interface, **asdict(state)}))
        except (GazelledError, OSError) as error:
            self._tell_once(str(error))
        else:
            self._wrong = ""

    def hear(self) -> None:
        """Follow what the kernel has just changed: a program may bind a new address at once. Never raises."""
        with suppress(OSError):  # also if there was too much to say
            while self.events.recv(65536):
                pass
        try:
            if self._find_interface():
                self._follow_addresses()
        except (GazelledError, OSError) as error:
            self._tell_once(str(error))

    def _find_interface(self) -> bool:
        """Follow a rename; False: the interface is gone, and the programs with it."""
        name = uplink.name_of(self._index)
        if name is None:
            if not self._gone:
                self._gone = True
                self.report(
                    f"{self.interface}: the interface is gone, so no packet reaches the stack; "
                    "once there is one again: gazelled restart"
                )
                self._write(json.dumps({"gone": True}))
            return False
        if name != self.interface:
            self.report(f"{self.interface}: the interface is called {name} now")
            self.interface = name
        return True

    def _follow_addresses(self) -> None:
        """Keep workers and programs in step with the interface: workers know an address before packets to it come."""
        have = tuple(netlink.own_addresses(self.interface))
        if have == self._taken:
            return
        if set(self._taken or ()).difference(have):  # what is listed while it changes may lack what was there all along
            have = tuple(netlink.own_addresses(self.interface))
        before = set(self._taken) if self._taken is not None else set(uplink.read_state(self.interface).addresses)
        full = [group_page.follow_own(self.run_dir.group_page(each), have) for each in self.processes]
        taken = [address for address in have if not any(address in each for each in full)]
        uplink.set_addresses(self.interface, taken)
        for address in before.difference(taken):
            self.report(f"{self.interface}: lost the address {address}, the stack serves it no more")
        for address in taken:
            if address not in before:
                self.report(f"{self.interface}: has the address {address}, the stack serves it")
        if len(taken) == len(have):
            self._taken = have
        else:
            self._tell_once(f"{len(have)} addresses; {len(have) - len(taken)} of them stay the kernel's")

    def _settle(self) -> None:
        """End the look-up of each packet once the kernel has no connection left on a port of the stack."""
        if not netlink.has_connections(self._taken or (), uplink.owned_ports(self.interface)):
            uplink.settle(self.interface)

    def _write(self, text: str) -> None:
        if text != self._written:
            self.run_dir.write(UPLINK_FILE, text)
            self._written = text

    def _tell_once(self, what: str) -> None:
        if what != self._wrong:
            self.report(f"uplink {self.interface}: {what}")
        self._wrong = what
