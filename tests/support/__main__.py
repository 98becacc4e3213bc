# SPDX-License-Identifier: MulanPSL-2.0
"""Write docs/reference/support.md; with --probe, say where the table and what happens disagree."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from support.docs import DOCUMENT, rendered


def probe() -> int:
    """Run all probes; return how many rows are wrong."""
    from conformance.places import Places
    from kit.lab import Kit

    from support.probes import MODE, disagrees
    from support.table import read

    with tempfile.TemporaryDirectory() as directory:
        kit, wrong = Kit(Path(directory)), 0
        try:
            places = Places(kit)
            for row in read().rows:
                if said := disagrees(row, *places.run(row.case, MODE)):
                    wrong += 1
                    print(said, flush=True)
        finally:
            kit.close()
    return wrong


if __name__ == "__main__":
    if "--probe" in sys.argv:
        sys.exit(1 if probe() else 0)
    DOCUMENT.write_text(rendered(DOCUMENT.read_text()))
