# SPDX-License-Identifier: MulanPSL-2.0
"""CPU lists as the kernel and people write them: "2-5,8"."""

from __future__ import annotations

import re
from collections.abc import Iterable

CPU_MAX = 65535  # far above any machine; keeps "0-99999999999" from filling the memory
_PART = re.compile(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", re.ASCII)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Return the CPUs of a list in the order written; ValueError says which part is wrong."""
    cpus: list[int] = []
    for part in text.split(",") if text.strip() else ():
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f'"{part.strip()}" is no CPU and no range')
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f'the range "{part.strip()}" runs backwards')
        if last > CPU_MAX:
            raise ValueError(f'"{part.strip()}" is above {CPU_MAX}')
        cpus.extend(range(first, last + 1))
    return tuple(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel would list them: sorted, ranges joined; "none" for no CPU."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"
