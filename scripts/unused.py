#!/usr/bin/env python3
# SPDX-License-Identifier: MulanPSL-2.0
"""Names the C functions and variables that nothing in production uses: scripts/unused.py [BUILD DIRECTORY].

It compares what the object files of the worker and the library define with what they ask for. A name that only its own
file uses should be static; one that only tests use is dead. Inline functions of headers are looked for in the text.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Each program: its own objects, and the objects of others that it is linked with.
PROGRAMS = {
    "lstack": ("lstack/liblstack-worker.a.p/*.o", "lstack/lstack.p/*.o", "lwip/liblwip.a.p/*.o"),
    "liblstack.so": ("shim/liblstack.so.p/*.o",),
}
MEANT = {
    "main",
    "eal_choose_memory",  # a test asks it about machines that this one is not
    "heap_taken",  # tests see by it that all is given back
    "heap_refused",
    "fragments_waiting",  # a fuzzer does
}
_INLINE = re.compile(r"^(?:static inline|#define)\s[^(\n]*?\b(\w+)\(", re.M)


def nm(*options: str) -> list[list[str]]:
    """Return the rows that nm prints: file, name, kind of symbol, ..."""
    done = subprocess.run(["nm", "-A", "-P", *options], capture_output=True, text=True, check=True)
    return [line.replace(": ", " ", 1).split() for line in done.stdout.splitlines()]


def unused(build: Path) -> list[str]:
    """Return a sentence for each name that its program defines and no other file of it asks for."""
    found = []
    for program, patterns in PROGRAMS.items():
        objects = [str(path) for pattern in patterns for path in sorted(build.glob(pattern))]
        if not objects:
            sys.exit(f"{build}: no objects of {program}; build first")
        exported = {row[1] for row in nm("-D", "--defined-only", str(next(build.glob(f"*/{program}"))))}
        rows = nm("-g", *objects)
        asked = {row[1] for row in rows if row[2] == "U"}
        for file, name, kind, *_ in rows:
            if kind in "TDBRV" and "lwip/" not in file and name not in asked | exported | MEANT:
                found.append(
                    f"{Path(file).name.removesuffix('.o').replace('_', '/', 1)}: {name}: no other file uses it"
                )
    return found


def unused_inline() -> list[str]:
    """Return a sentence for each inline function or macro of a header that stands in the text only once."""
    sources = [path for folder in ("native", "fuzz", "tests") for path in (REPOSITORY / folder).rglob("*.[ch]")]
    texts = {path: path.read_text() for path in sources}
    count = Counter(word for text in texts.values() for word in re.findall(r"\w+", text))
    headers = [path for path in sources if path.suffix == ".h" and "lwip" not in path.parts]
    return [
        f"{path.relative_to(REPOSITORY)}: {name}: nothing uses it"
        for path in headers
        for name in _INLINE.findall(texts[path])
        if count[name] < 2
    ]


if __name__ == "__main__":
    lines = unused(Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "build")) + unused_inline()
    print("\n".join([*lines, f"unused: {len(lines)} names" if lines else "unused: none"]))
    sys.exit(bool(lines))
