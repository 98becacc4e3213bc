# SPDX-License-Identifier: MulanPSL-2.0
"""Run cases by hand: `PYTHONPATH=tests python -m conformance [OPTION]... [GLOB]...`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from kit.lab import Kit

from conformance.compare import difference, read, verdict
from conformance.places import Places
from conformance.registry import MODES, load

_HANGS_MAX = 200


def main() -> int:
    """Run, print every difference and a summary; 1 if there is an unexplained one."""
    parser = argparse.ArgumentParser(prog="conformance")
    parser.add_argument("globs", nargs="*", default=["*"])
    parser.add_argument(
        "--kernel-only", action="store_true", help="both runs on the kernel: are the cases deterministic?"
    )
    parser.add_argument("--mode", action="append", choices=sorted(MODES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--uplink", action="store_true", help="the stack beside the kernel, instead of on a tap")
    parser.add_argument("--slow", type=float, default=1.0, help="name cases that take longer, in seconds")
    parser.add_argument("--all", action="store_true", help="also what the stack is not yet said to have")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the kernel's trace of every case")
    wanted = parser.parse_args()
    table, counts, hangs, begin = read(), Counter[tuple[str, str]](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        kit = Kit(Path(directory))
        try:
            places = Places(kit, wanted.workers, wanted.uplink)
            for name, case in load().items():
                if not any(fnmatchcase(name, glob) for glob in wanted.globs):
                    continue
                for mode in (MODES[m] for m in case.modes if not wanted.mode or m in wanted.mode):
                    if (lacks := case.needs & table.not_yet.keys()) and not (wanted.kernel_only or wanted.all):
                        counts[mode.name, "not yet on the stack"] += 1
                        print(f"----- {name} [{mode.name}] not yet on the stack: {', '.join(sorted(lacks))}")
                        continue
                    started = time.monotonic()
                    if wanted.kernel_only:
                        kernel = places.kernel(mode).run(name, mode.name)
                        second = places.kernel(mode, "again").run(name, mode.name)
                        said, text = ("same", "") if kernel == second else ("different", difference(kernel, second))
                    else:
                        kernel, second = places.run(name, mode)
                        said, text = verdict(name, mode.name, kernel, second, table)
                    took = time.monotonic() - started
                    counts[mode.name, said] += 1
                    if wanted.verbose:
                        print("\n".join([f"===== {name} [{mode.name}]", *kernel]))
                    if said != "same":
                        print(f"##### {name} [{mode.name}] {said}\n{text}", flush=True)
                    if took > wanted.slow:
                        print(f"..... {name} [{mode.name}] took {took:.1f} s")
                    hangs += "did not come to its end" in second[-1] if second else 0
                    if hangs >= _HANGS_MAX:
                        print(f"stopped after {hangs} cases that did not come to an end")
                        return 1
        finally:
            kit.close()
    for name in MODES:
        print(f"{name:9} " + ", ".join(f"{n} {said}" for (m, said), n in sorted(counts.items()) if m == name))
    print(f"{sum(counts.values())} runs of cases, {time.monotonic() - begin:.0f} s")
    return 1 if any(said == "different" for _, said in counts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
