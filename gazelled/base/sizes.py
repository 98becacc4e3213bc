# SPDX-License-Identifier: MulanPSL-2.0
"""Sizes as people read them, in IEC units."""

from __future__ import annotations


def iec(size: float) -> str:
    """Return a number of bytes as "512 B", "1.5 KiB", "38.1 MiB"...: at most four figures."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} PiB"
