# SPDX-License-Identifier: MulanPSL-2.0
"""Cases and the modes they run in. A new case is a function with @case above it, in a module of conformance.cases."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.env import T

STACK, HOST, LOOPBACK = "10.91.0.2", "10.91.0.1", "127.0.0.1"
STACK6, HOST6 = "fd00:91::2", "fd00:91::1"


@dataclass(frozen=True)
class Mode:
    """Who is on the stack, and over which addresses the two ends meet."""

    name: str
    here: str  # address of the case's own process, always the one on the stack
    there: str  # address of the other process
    peer_on_stack: bool
    serves: bool  # in pair(): the case's process accepts, else it connects
    says: str

    @property
    def wire(self) -> bool:
        """Tell whether packets go over the port."""
        return self.here != self.there


MODES = {
    mode.name: mode
    for mode in (
        Mode("server", STACK, HOST, False, True, "server on the stack, client on the kernel, over the tap"),
        Mode("client", STACK, HOST, False, False, "client on the stack, server on the kernel, over the tap"),
        Mode("both", STACK, STACK, True, True, "both on the stack, same host, the stack's address; seen by the server"),
        Mode("loopback", LOOPBACK, LOOPBACK, True, False, "both on the stack, 127.0.0.1; seen by the client"),
        Mode("mixed", LOOPBACK, LOOPBACK, False, True, "server on the stack, client on the kernel, 127.0.0.1"),
    )
}

# Which modes tell different stories: depends on what a case does.
PAIR = ("server", "client", "both", "loopback", "mixed")  # works on a connection, whoever made it
LISTEN = ("server", "both", "mixed")  # its own process listens
DIAL = ("client", "both", "loopback")  # its own process connects
SOLO = ("server", "loopback")  # has no other end


@dataclass(frozen=True)
class Case:
    """One case."""

    name: str
    function: Callable[[T], None]
    modes: tuple[str, ...]
    needs: frozenset[str]


CASES: dict[str, Case] = {}


def add(name: str, function: Callable[[T], None], modes: tuple[str, ...], needs: Iterable[str] = ()) -> None:
    """Enter a case."""
    name = name.replace("_", "-")
    assert name not in CASES, f"two cases named {name}"
    CASES[name] = Case(name, function, modes, frozenset(needs))


def case(modes: tuple[str, ...] = PAIR, *needs: str) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
    """Make a function a case; `needs` names capabilities the stack may lack."""

    def enter(function: Callable[[T], None]) -> Callable[[T], None]:
        add(function.__name__, function, modes, needs)
        return function

    return enter


def _row(function: Callable[..., None], values: tuple[Any, ...]) -> Callable[[T], None]:
    return lambda t: function(t, *values)


def table(
    rows: dict[str, tuple[Any, ...]], modes: tuple[str, ...] = PAIR, *needs: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make one case of each row: its name follows the function's, its values follow the environment."""

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        for name, values in rows.items():
            add(f"{function.__name__}-{name}", _row(function, values), modes, needs)
        return function

    return enter


def load() -> dict[str, Case]:
    """Import every module of cases."""
    package = importlib.import_module("conformance.cases")
    for module in sorted(found.name for found in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"conformance.cases.{module}")
    return CASES
