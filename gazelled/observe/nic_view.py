# SPDX-License-Identifier: MulanPSL-2.0
"""The table of `gazelled nics`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from gazelled.nics.guard import NicRow

_COLUMNS = ("NAME", "PCI", "DRIVER", "NUMA", "QUEUES", "MAC", "ADDRESSES", "LINK", "IN USE: IT", "USABLE AS")


def print_nics(rows: Sequence[NicRow]) -> None:
    """Print the NICs as a table, then what one can do next."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 400  # a program that reads a pipe cuts lines itself
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name or "-",
            row.pci or "-",
            row.driver or "-",
            "-" if row.numa is None else str(row.numa),
            str(row.queues or "-"),
            row.mac or "-",
            "\n".join(row.addresses) or "-",
            row.link or "-",
            "\n".join(row.in_use) or "-",
            row.usable,
        )
    console.print(table)
    free = [row.name or row.pci for row in rows if "after `bind`" in row.usable]
    console.print(
        f"\n{len(rows)} NICs; free for DPDK: {', '.join(free) or 'none'}."
        + (f" Next: gazelled bind {free[0]}" if free else ' No NIC is needed for driver = "tap".')
    )
